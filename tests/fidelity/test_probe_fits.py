"""Which heads and rows are probed, and that every lens is judged on the cache itself."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from alens.errors import StoppedError
from alens.evaluation.evaluate import evaluate
from alens.fidelity.forms import TargetForm, ZForm
from alens.fidelity.probe_fits import OTHER_ORDER, REFERENCE, Probe, Rows, spread_heads
from alens.heads import Heads
from alens.lens.lenses import load_lenses
from alens.store.cache_reader import Cache

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("count", "layers", "heads"),
    [
        (1, (2,), (3,)),
        (4, (0, 1, 2, 3), (3,)),
        (6, (0, 2, 3), (0, 5)),
        (8, (0, 1, 2, 3), (0, 5)),
        (7, (0, 2, 3), (0, 5)),
        (999, (0, 1, 2, 3), (0, 1, 2, 3, 4, 5)),
    ],
)
def test_heads_are_spread_over_layers(
    demo: Cache, count: int, layers: tuple[int, ...], heads: tuple[int, ...]
) -> None:
    assert spread_heads(demo, count) == Heads.grid(layers, heads)


def test_the_last_shards_are_held_out(demo: Cache, as_int8: Cache) -> None:
    assert Rows.choose(demo, 10**6, 10**6) == Rows(train=(0, 1, 2, 3, 4), held_out=(5,))
    assert Rows.choose(demo, 2000, 1) == Rows(train=(0, 4), held_out=(5,))
    assert Rows.choose(as_int8, 10, 10) == Rows(train=(0,), held_out=(1,))


def test_lenses_are_judged_as_eval_judges_them(demo: Cache, demo_lenses: Path, tmp_path: Path) -> None:
    """The lenses hold out the same shards as the probe."""
    expected = evaluate(load_lenses(demo_lenses), demo)
    probe = Probe(
        cache=demo,
        heads=Heads.grid((0, 3), (1, 4)),
        rows=Rows.choose(demo, 10**6, 10**6),
        work=tmp_path,
        device=CPU,
    )
    assert probe.rows.held_out == expected.shards
    assert probe.judge(demo_lenses) == pytest.approx(
        [head.kl for layer in (0, 3) for head in expected.lens[layer]], rel=1e-6
    )


def test_every_form_is_fitted_and_compared(demo: Cache, tmp_path: Path) -> None:
    seen = []
    probe = Probe(
        cache=demo,
        heads=Heads.grid((3,), (1,)),
        rows=Rows.choose(demo, 10**6, 10**6),
        work=tmp_path,
        device=CPU,
        report=seen.append,
    )
    figures = {f.name: f for f in probe.run([ZForm("float16", 0)], [TargetForm(1, 1)])}
    stored, coarse, rough = "top 16, 16 samples", "top 1, 1 samples", "keep_bits 0"
    assert list(figures) == [REFERENCE, OTHER_ORDER, stored, coarse, rough]
    kl = {name: figure.kl["3.1"] for name, figure in figures.items()}
    assert figures[REFERENCE].ratio.mean == 1
    assert figures[coarse].ratio.worst == pytest.approx(kl[coarse] / kl[REFERENCE])
    assert kl[coarse] > kl[stored] > kl[REFERENCE]
    assert kl[rough] != kl[REFERENCE] and kl[OTHER_ORDER] != kl[REFERENCE]
    assert list(tmp_path.iterdir()) == []
    done = [p.done for p in seen]
    assert done == sorted(done) and sorted(set(done)) == list(range(seen[-1].total + 1))
    first = [p.note.removeprefix("fit 1 of 5, reference: ") for p in seen[:3]]
    assert first[0] == "writing a cache" and seen[-1].note == "fit 5 of 5, keep_bits 0: judging"


def test_without_the_exact_teacher_stored_targets_judge(without_teacher: Cache, tmp_path: Path) -> None:
    probe = Probe(
        cache=without_teacher,
        heads=Heads.grid((3,), (2,)),
        rows=Rows(train=(0,), held_out=(5,)),
        work=tmp_path,
        device=CPU,
    )
    assert [name for name, *_ in probe.variants([ZForm("int8", None)], [])] == [
        REFERENCE,
        OTHER_ORDER,
        "int8",
    ]
    (figure,) = [f for f in probe.run([ZForm("int8", None)], []) if f.name == "int8"]
    assert 0.9 < figure.ratio.mean < 1.1 and np.isfinite(figure.kl["3.2"])


@pytest.mark.parametrize("stop_at", [1, 40])
def test_a_stop_leaves_nothing(demo: Cache, tmp_path: Path, stop_at: int) -> None:
    asked = iter(range(1, 10**6))
    probe = Probe(
        cache=demo,
        heads=Heads.grid((3,), (1,)),
        rows=Rows.choose(demo, 2000, 10**6),
        work=tmp_path,
        device=CPU,
        should_stop=lambda: next(asked) >= stop_at,
    )
    with pytest.raises(StoppedError):
        dataclasses.replace(probe).run([ZForm("int8", None)] * 9, [TargetForm(4, 4)])
    assert list(tmp_path.iterdir()) == []
