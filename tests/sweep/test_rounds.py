from typing import Any

import pytest
import torch

from alens.store.cache_reader import open_cache
from alens.sweep.planned import resolve
from alens.sweep.rounds import bytes_of, in_rounds


def sizes(sweep: Any, monkeypatch: pytest.MonkeyPatch, room: int, at_once: int | None = None) -> list[int]:
    request = sweep(seed=[0, 1], lr=[0.01, 0.02, 0.03])
    cache = open_cache(request.store)
    planned = resolve(request, cache)
    one = bytes_of(planned[0], cache)
    monkeypatch.setattr("alens.sweep.rounds.free_bytes", lambda _: 2 * room * one)
    made = in_rounds(planned, cache, torch.device("cpu"), at_once)
    assert [fit for fits in made for fit in fits] == planned
    assert all(len({fit.shared_read for fit in fits}) == 1 for fits in made)
    return [len(fits) for fits in made]


@pytest.mark.parametrize(("room", "expected"), [(100, [3, 3]), (2, [2, 1, 2, 1]), (0, [1] * 6)])
def test_a_round_takes_half_of_the_free_memory(
    sweep: Any, monkeypatch: pytest.MonkeyPatch, room: int, expected: list[int]
) -> None:
    assert sizes(sweep, monkeypatch, room) == expected


def test_a_number_beats_the_memory(sweep: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert sizes(sweep, monkeypatch, 0, at_once=2) == [2, 1, 2, 1]


def test_one_takes_its_weights_five_times_and_an_unembedding(sweep: Any) -> None:
    request = sweep()
    cache = open_cache(request.store)
    model = cache.plan.model
    weights = (model.d_head + 1) * model.d_vocab
    [fit] = resolve(request, cache)
    assert bytes_of(fit, cache) == 4 * (5 * weights + model.d_model * model.d_vocab)
