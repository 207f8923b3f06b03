"""How often work waits for the GPU in each batch or step. A wait more is a failing test: say here why it is needed."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from .conftest import Child

pytestmark = pytest.mark.pretend

EACH_BATCH_OF_A_CACHE = {
    "cache/row_collector.py:_finish: an event": 1,  # of the batch before: its copies must have arrived
}
EACH_STEP_OF_A_FIT = {
    # Without Triton's kernel, as here:
    "fit/objectives/cross_entropy_tiles.py:cross_entropy: local_scalar_dense": 4,  # a look a head, at sums that overflowed
    "rows/teacher.py:tile: nonzero": 2,  # once a layer: which targets are in a tile
    # Now and then:
    "fit/trainer.py:step: nonzero": 1 / 8,  # one step in eight looks for losses that diverge
    "fit/trainer.py:step: tolist": 1 / 8,
    "lens/maps.py:<lambda>: a copy to the CPU": 1 / 8,  # the best maps, after an evaluation
    "lens/maps.py:<lambda>: a copy to the GPU": 1 / 8,
    "fit/step_notes.py:_looked_up: local_scalar_dense": 1,  # the loss that is shown, at most once a second
    "fit/step_notes.py:_looked_up: an index of truth values": 1,
}
STEPS, BATCHES = 16, 8


def growth(few: dict[str, Any], many: dict[str, Any]) -> Counter[str]:
    """By place, how many waits `many` has more than `few`."""
    for done in (few, many):
        assert done["code"] == 0, done["stderr"]
    counts = [Counter({f"{place}: {what}": n for place, what, n in done["waits"]}) for done in (few, many)]
    return counts[1] - counts[0]


@pytest.fixture(scope="module")
def ended(in_child: Child, demo_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Commands of few and many batches or steps."""
    folder = tmp_path_factory.mktemp("waits")

    def cache(batches: int) -> list[object]:
        sizes = (
            "--max-rows",
            256 * batches,
            "--rows-per-shard",
            256 * batches,
            "--seq-len",
            64,
            "--batch-size",
            4,
        )
        return [
            "cache",
            "demo",
            "demo",
            folder / f"cache-{batches}",
            *sizes,
            "--layers",
            "0,3",
            "--device",
            "cuda",
        ]

    def fit(steps: int) -> list[object]:
        heads = (
            "--layers",
            "0,3",
            "--heads",
            "1,4",
            "--batch-rows",
            128,
            "--eval-rows",
            1024,
            "--tolerance",
            0,
        )
        return ["fit", demo_cache, folder / f"fit-{steps}", *heads, "--steps", steps, "--device", "cuda"]

    commands = {
        "few batches": cache(BATCHES),
        "many batches": cache(2 * BATCHES),
        "few steps": fit(STEPS),
        "many steps": fit(2 * STEPS),
    }
    texts = {name: [str(part) for part in arguments] for name, arguments in commands.items()}
    (done,) = in_child({"gpus": 1, "commands": texts, "checks": ["a_step_of_a_fit_does_not_wait"]})
    return done


def test_a_batch_of_a_cache_waits_for_the_copies_of_the_one_before_alone(ended: dict[str, Any]) -> None:
    grown = growth(ended["few batches"], ended["many batches"])
    assert {place: count / BATCHES for place, count in grown.items()} == EACH_BATCH_OF_A_CACHE


def test_a_step_of_a_fit_waits_no_more_than_it_must(ended: dict[str, Any]) -> None:
    grown = growth(ended["few steps"], ended["many steps"])
    assert grown, "the fit did not run on the GPU"
    more = {p: n / STEPS for p, n in grown.items() if n / STEPS > EACH_STEP_OF_A_FIT.get(p, 0)}
    assert more == {}


def test_with_the_kernel_a_step_of_a_fit_does_not_wait(ended: dict[str, Any]) -> None:
    assert ended["a_step_of_a_fit_does_not_wait"] is None, ended["a_step_of_a_fit_does_not_wait"]
