"""Every result shows itself: one short line, the document that its command prints, and a frame of plain values."""

import functools
import json
import pkgutil
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

import alens
from alens import HeadReader, load_lenses, open_cache, read_page
from alens.cache.write_cache import CacheSummary
from alens.effects.measure_effects import EffectSummary
from alens.effects.measure_jacobians import JacobianSummary
from alens.exchange import export
from alens.fit.training_loop import FitSummary
from alens.result import REPR_LENGTH, Result
from alens.store.push import Pushed
from alens.store.status import cache_status
from alens.sweep.table import HeadRow, SweepTable, VariantRow

SOURCE = Path(alens.__file__).parent
HEADS = {(0, 1), (0, 4), (3, 1), (3, 4)}
"""Layer and head of each lens of `demo_lenses`."""

ALL_HEADS = {(layer, head) for layer in range(4) for head in range(6)}
"""Those of the demo's model."""

PROMPT = "He took her hand and"
FRAME, MOST_HTML = "<iframe ", 12_000
"""What a page is shown in; characters of the HTML of any other result: a short table."""
MADE_HERE = (
    "CacheSummary",
    "EffectSummary",
    "JacobianSummary",
    "FitSummary",
    "LensRecord",
    "CacheStatus",
    "ExportPlan",
    "PageData",
    "Pushed",
)
"""Results that a test makes by itself, beside those of `COMMANDS`."""

COMMANDS = {
    "Evaluation": ("alens.evaluation.evaluate:evaluate", "eval {lenses} {cache} --rows 64"),
    "Reading": ("alens.reading.head_reader:HeadReader.read", "read {lenses} {prompt} --token her --top 3"),
    "HeadFamilies": (
        "alens.studies.families.score_heads:score_heads",
        "heads demo --sequences 1 --length 4",
    ),
    "Location": (
        "alens.studies.location.locate:locate",
        "locate {lenses} --terms {terms} --prompts {men} --control {women} --permutations 19",
    ),
    "Comparison": (
        "alens.studies.comparison.compare:compare",
        "compare {lenses} --clean {men} --suspect {women} --resamples 9",
    ),
    "Injection": (
        "alens.studies.injection.inject:inject",
        "inject {lenses} {prompt} --layer 3 --head 1 --tokens her --strength 0,1 --random 1",
    ),
    "Ablations": (
        "alens.studies.injection.ablate:ablate",
        "inject {lenses} {prompt} --layer 3 --head 1,4 --ablate zero",
    ),
    "BasisStudy": (
        "alens.studies.basis.causal_basis:causal_bases",
        "basis {lenses} {cache} --rows 64 --sequences 2 --directions 4",
    ),
    "TransferMatrix": ("alens.studies.transfer.transfer:transfer", "transfer {lenses} {cache} --rows 64"),
    "CopyTransfer": (
        "alens.studies.transfer.finetuned:transfer_to_copy",
        "transfer {lenses} {cache} --to {copy} --rows 64",
    ),
    "Fidelity": (
        "alens.fidelity.measure:measure_fidelity",
        "fidelity {cache} --rows 64 --no-fit --keep-bits 4",
    ),
    "Estimate": (
        "alens.planning.estimate_cache:estimate_cache",
        "plan demo demo --max-rows 2048 --rows-per-shard 1024 --seq-len 64 --probe-seconds 0.01",
    ),
    "Verdict": ("alens.store.verify:verify_cache", "verify {cache}"),
    "Recomputed": ("alens.cache.recompute:recompute", "verify {cache} --deep 8"),
    "Atlas": (
        "alens.atlas.make_atlas:make_atlas",
        "atlas {lenses} {cache} --html {atlas} --rows 8 --judged-rows 16 --roles none",
    ),
    "Bundle": ("alens.exchange.bundle:prepare", "publish {lenses} --repo me/demo-lenses"),
}
"""The function that makes each result, and a command that prints it."""


@pytest.fixture(scope="module")
def words(
    demo_cache: Path, demo_lenses: Path, rotated_cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """What the commands above name."""
    folder = tmp_path_factory.mktemp("words")
    (folder / "terms.txt").write_text("he\nher\n")
    for name, nouns in (("men", "man boy king father son"), ("women", "woman girl queen mother aunt")):
        (folder / f"{name}.txt").write_text("".join(f"The {noun} said that\n" for noun in nouns.split()))
    files = {path.stem: str(path) for path in folder.iterdir()}
    stores = {
        "cache": str(demo_cache),
        "lenses": str(demo_lenses),
        "copy": str(rotated_cache),
        "atlas": str(folder / "atlas"),
    }
    return {**files, **stores, "prompt": PROMPT}


@pytest.fixture(scope="module")
def results(demo_cache: Path, demo_lenses: Path) -> Callable[[str], Result]:
    """Results that no command prints, by their class."""
    cache, lenses = open_cache(demo_cache), load_lenses(demo_lenses)

    @functools.cache
    def make(name: str) -> Result:
        made: dict[str, Callable[[], Result]] = {
            "CacheSummary": lambda: CacheSummary(
                cache=cache, shards_written=6, rows_written=6144, seconds=1.5
            ),
            "EffectSummary": lambda: EffectSummary(
                store=demo_cache, rows=504, heads=24, effects_measured=12096, seconds=1.5, complete=True
            ),
            "JacobianSummary": lambda: JacobianSummary(
                store=demo_cache,
                rows=504,
                heads=24,
                reach="same-position",
                passes=16,
                seconds=1.5,
                complete=True,
            ),
            "FitSummary": lambda: FitSummary(
                lenses=demo_lenses, record=lenses.record, steps_taken=9, rows=10, seconds=0.5, waited_s=0.1
            ),
            "Pushed": lambda: Pushed(
                to="s3://bucket/cache",
                shards=6,
                shards_sent=4,
                shards_there=2,
                measured_sent=0,
                bytes_sent=10_000,
                sealed=True,
                seconds=1.5,
                dry_run=False,
            ),
            "LensRecord": lambda: lenses.record,
            "CacheStatus": lambda: cache_status(cache),
            "ExportPlan": lambda: export.plan(lenses),
            "PageData": lambda: read_page(HeadReader(lenses, device="cpu"), [PROMPT], top=2),
        }
        return made[name]()

    return make


def check(result: Result) -> None:
    """The line, the values and the frame of a result."""
    line = repr(result)
    assert line.startswith(f"<{type(result).__name__}: ")
    assert len(line) <= REPR_LENGTH and "\n" not in line and " object at " not in line
    json.dumps(result.to_json(), allow_nan=False)
    records = result.records()
    assert json.loads(json.dumps(records, allow_nan=False)) == records
    assert not any(isinstance(value, dict) for record in records for value in record.values())
    shown = result._repr_html_()
    assert "object at" not in shown and len(shown.replace(FRAME, "")) > len(line)
    if FRAME not in shown:
        assert len(shown) < MOST_HTML and type(result).__name__ in shown
    frame = result.to_frame()
    assert len(frame) == len(records)
    if "head" in frame.columns:
        heads = ALL_HEADS if type(result).__name__ == "HeadFamilies" else HEADS
        assert set(zip(frame["layer"], frame["head"], strict=True)) <= heads


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_prints_the_document_of_its_result(
    name: str, words: dict[str, str], run_alens: Any
) -> None:
    place, line = COMMANDS[name]
    made: list[Result] = []
    function = pkgutil.resolve_name(place)

    def remembered(*arguments: Any, **options: Any) -> Any:
        made.append(function(*arguments, **options))
        return made[-1]

    with mock.patch(place.replace(":", "."), remembered):
        arguments = [word.format(**words) for word in line.split()]
        outcome = run_alens(
            *arguments, *(["--device", "cpu"] if name not in ("Verdict", "Atlas", "Bundle") else []), "--json"
        )
    assert outcome.code == 0, outcome.stderr
    (result,) = made
    assert type(result).__name__ == name
    check(result)
    printed, document = json.loads(outcome.stdout), json.loads(json.dumps(result.to_json()))
    if name == "Reading":
        assert printed == [document]
    elif name == "Recomputed":
        assert printed["deep"] == document
    else:
        assert {key: printed[key] for key in document} == document
        assert name in ("Verdict", "Bundle") or printed == document


@pytest.mark.parametrize(
    "name",
    MADE_HERE,
)
def test_a_result_without_a_command_shows_itself_too(name: str, results: Callable[[str], Result]) -> None:
    result = results(name)
    assert type(result).__name__ == name
    check(result)
    assert json.loads(json.dumps(result.to_json())) == result.to_json()


@pytest.mark.parametrize("name", ["LensRecord", "FitSummary"])
def test_the_frame_of_lenses_has_a_row_a_head(name: str, results: Callable[[str], Result]) -> None:
    frame = results(name).to_frame()
    assert set(zip(frame["layer"], frame["head"], strict=True)) == HEADS
    assert frame["kl"].gt(0).all()


def test_lenses_and_a_cache_say_what_they_are(demo_cache: Path, demo_lenses: Path) -> None:
    mean = r"mean held-out KL \d\.\d{3} nats"
    assert re.fullmatch(
        rf"<Lenses {demo_lenses}: 4 linear lenses of 2 layers of demo, {mean}>",
        repr(load_lenses(demo_lenses)),
    )
    assert repr(open_cache(demo_cache)) == f"<Cache {demo_cache}: 6,144 rows of 4 layers of demo, sealed>"


def test_the_table_of_a_sweep_shows_itself() -> None:
    heads = tuple(
        HeadRow(layer=layer, head=head, kl=2.0, interval=(1.5, 2.5), cross_entropy=6.0, top1_agreement=0.1, says_nothing=False)
        for layer, head in sorted(HEADS)
    )  # fmt: skip
    rows = (
        VariantRow(name="lr=0.01", settings={"lr": 0.01}, failed=None, kl=2.0, heads=heads),
        VariantRow(name="lr=9", settings={"lr": 9.0}, failed="not finite"),
    )
    table = SweepTable(
        rows=rows,
        missing=("x",),
        against=None,
        sequences=9,
        intervals_over="documents",
        groups=3,
        held_out_rows=64,
    )
    check(table)
    assert "2 variants finished, 1 missing, lowest mean KL 2.000 nats by lr=0.01" in repr(table)
    assert table.to_frame()["kl_low"].tolist() == [1.5] * 4


def test_every_result_is_shown_here() -> None:
    classes = {
        name
        for path in SOURCE.rglob("*.py")
        for name in re.findall(r"^class (\w+)\(Result\):", path.read_text(), re.MULTILINE)
    }
    shown = {
        *COMMANDS,
        *MADE_HERE,
        SweepTable.__name__,
    }
    assert classes == shown
