"""Layers judged one group after the other: the figures of a single pass, and only one panel in memory."""

import dataclasses
import gc
import weakref
from pathlib import Path

import pytest

from alens import EvaluateSettings, evaluate, load_lenses, open_cache
from alens.evaluation import layers_in_turn
from alens.evaluation.panel import Panel
from alens.heads import Heads

SETTINGS = EvaluateSettings(rows=200, resamples=20)


def test_layers_are_divided_by_what_their_maps_take(
    demo_lenses: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record, heads = load_lenses(demo_lenses).record, Heads.grid(range(4), (0, 1))
    layer_bytes = 2 * 2 * 4 * record.model.d_head * record.model.d_vocab
    for room, expected in ((0, [1, 1, 1, 1]), (2 * layer_bytes, [2, 2]), (3 * layer_bytes, [3, 1])):
        monkeypatch.setattr(layers_in_turn, "MAPS_BYTES", room)
        assert [len(some.layers) for some in layers_in_turn.divided(record, heads, 2)] == expected
    stream = dataclasses.replace(record, site="resid_post", heads=(0,), held_out={})
    monkeypatch.setattr(layers_in_turn, "MAPS_BYTES", 2 * 4 * record.model.d_model * record.model.d_vocab)
    divided = layers_in_turn.divided(stream, Heads.grid(range(4), (0,)), 1)
    assert [len(some.layers) for some in divided] == [2, 2]  # the unembedding is that of the model


def test_groups_have_the_figures_and_intervals_of_a_single_pass(
    demo_lenses: Path, demo_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lenses, cache = load_lenses(demo_lenses), open_cache(demo_cache)
    once = evaluate(lenses, cache, settings=SETTINGS)
    monkeypatch.setattr(layers_in_turn, "MAPS_BYTES", 0)
    panels: list[weakref.ref[Panel]] = []
    together = []
    made = Panel.__init__

    def counted(self: Panel, *given: object, **more: object) -> None:
        gc.collect()
        together.append(sum(panel() is not None for panel in panels))
        panels.append(weakref.ref(self))
        made(self, *given, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(Panel, "__init__", counted)
    assert evaluate(lenses, cache, settings=SETTINGS) == once
    assert together == [0, 0]
