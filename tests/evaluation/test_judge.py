"""The loop over held-out rows: groups, targets, reports, and what it does when somebody asks to stop."""

import re
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

import alens
from alens import load_lenses, open_cache
from alens.evaluation.judge import judge, num_top_tokens, reference_of
from alens.evaluation.readings import Readings, constant_reading, lens_readings
from alens.evaluation.sums import ALL, KL, ReadingSums
from alens.heads import Heads
from alens.job.interruption import droppable
from alens.job.progress import Progress
from alens.rows.columns import Columns, RowReader
from alens.rows.held_out_rows import HeldOutPart, HeldOutRows
from alens.rows.teacher import Teacher
from alens.statistics.groups import Groups

CPU = torch.device("cpu")
ROWS = 1500
"""How many rows are judged, of two shards with 1,008 usable rows each."""


@pytest.fixture
def rows(demo_cache: Path) -> HeldOutRows:
    reader = RowReader(open_cache(demo_cache), Heads.grid((3,), (1, 4)), "compressed", 1, CPU)
    return HeldOutRows(reader=reader, shards=(4, 5), num_rows=ROWS)


@pytest.fixture
def mean_V(demo_cache: Path) -> torch.Tensor:
    cache = open_cache(demo_cache)
    return torch.from_numpy(cache.log_mean_output(cache.shards))


def test_all_rows_are_judged_and_told(rows: HeldOutRows, demo_lenses: Path, mean_V: torch.Tensor) -> None:
    maps, told = load_lenses(demo_lenses).layer(3).maps, list[Progress]()
    groups = Groups.of_shards(rows.reader.cache, rows.shards)
    sums = ReadingSums(3, CPU, num_groups=groups.count, figures=ALL)
    bytes_V = torch.full((len(mean_V),), 3)

    def readings(part: HeldOutPart) -> list[Readings]:
        return [*lens_readings(maps, part.values(3)), constant_reading(mean_V)]

    judge(rows, readings, sums, groups=groups, token_bytes_V=bytes_V, report=told.append, stage="looking")
    assert {one.stage for one in told} == {"looking"} and (told[0].done, told[-1].done) == (0, ROWS)
    assert sums.counts[0] == sums.rows_G.sum() == ROWS
    assert sums.bytes_G.sum() == 3 * sums.next_G.sum() == 3 * sums.counts[1]
    torch.testing.assert_close(sums.sums_GQC.sum(0)[:, KL], sums.totals_QF[:, KL])
    lens = judge(rows, lambda part: lens_readings(maps, part.values(3)), ReadingSums(2, CPU))
    for few, all_of_them in zip(lens.means(), sums.means(), strict=False):  # whatever else is asked
        assert asdict(few) == pytest.approx(asdict(all_of_them), rel=1e-6)


def test_a_target_stands_in_for_the_models_distributions(rows: HeldOutRows, mean_V: torch.Tensor) -> None:
    class Uniform:
        is_dense = True

        def __init__(self, num_rows: int) -> None:
            self.entropies = torch.full((num_rows,), torch.log(torch.tensor(float(len(mean_V)))).item())

        def block(self, rows: slice) -> "Uniform":
            return self

        def tile(self, columns: slice) -> "Uniform":
            return self

        def expect(self, logits_BC: torch.Tensor) -> torch.Tensor:
            return logits_BC.sum(-1) / len(mean_V)

    def target(columns: Columns, teacher: Teacher) -> Teacher:
        uniform: Teacher = Uniform(len(columns))  # type: ignore[assignment]  # no gradients are asked of it
        return uniform

    uniform = constant_reading(torch.zeros(len(mean_V)))
    (figures,) = judge(rows, lambda _: [uniform], ReadingSums(1, CPU), target=target).means()
    assert figures.kl == pytest.approx(0, abs=1e-5)


def test_the_loop_ends_where_somebody_asks_to_stop(rows: HeldOutRows, mean_V: torch.Tensor) -> None:
    asked, parts = [0], list[int]()

    def should_stop() -> bool:
        asked[0] += 1
        return asked[0] > 5

    def readings(part: HeldOutPart) -> list[Readings]:
        parts.append(len(part))
        return [constant_reading(mean_V)]

    with droppable(should_stop) as work:
        judge(rows, readings, ReadingSums(1, CPU))
    assert work.left_out and parts == [1008]  # the second shard is not read


def test_the_second_agreement_is_over_what_the_cache_holds(rows: HeldOutRows) -> None:
    assert num_top_tokens(rows.reader.cache) == 10
    (part, *_) = rows.parts()
    several = reference_of(part, ALL).several
    assert several is not None and several.k == 10 and reference_of(part).several is None


def test_held_out_rows_are_gone_through_in_two_places() -> None:
    """In this loop, which judges readings, and in the loop that a fit takes its own objective in."""
    root = Path(alens.__file__).parent
    loops = [
        str(path.relative_to(root))
        for path in sorted(root.rglob("*.py"))
        if re.search(r"for \w+ in \w+\.parts\(\w*\):\n +(?!pass)", path.read_text())
    ]
    assert loops == ["evaluation/judge.py", "fit/judging.py"]
