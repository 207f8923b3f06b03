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
EACH_HEAD_THAT_IS_JUDGED = {
    "rows/agreement.py:shares: local_scalar_dense": 6,  # for each figure and reading: are there ties beyond the k-th token?
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
KINDS = {
    "": "--no-final-moments",
    " of int8": "--no-final-moments --z-dtype int8",
    " of bits": "--no-final-moments --keep-bits 6",
    " of moments": "--moments-only",
}
LAYERS = 2
STEPS, BATCHES = 16, 8


def growth(few: dict[str, Any], many: dict[str, Any]) -> Counter[str]:
    """By place, how many waits `many` has more than `few`."""
    for done in (few, many):
        assert done["code"] == 0, done["stderr"]
    counts = [Counter({f"{place}: {what}": n for place, what, n in done["waits"]}) for done in (few, many)]
    return counts[1] - counts[0]


@pytest.fixture(scope="module")
def ended(
    in_child: Child, demo_cache: Path, demo_lenses: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """Commands of few and many batches or steps."""
    folder = tmp_path_factory.mktemp("waits")

    def cache(batches: int, kind: str) -> list[object]:
        rows = 256 * batches
        sizes = f"--max-rows {rows} --rows-per-shard {rows} --seq-len 64 --batch-size 4 --layers 0,3 {KINDS[kind]}"
        store = folder / f"cache-{batches}{kind}"
        return ["cache", "demo", "demo", store, *sizes.split(), "--device", "cuda"]

    def fit(steps: int) -> list[object]:
        how = [
            "--layers",
            "0,3",
            "--heads",
            "1,4",
            "--batch-rows",
            "128",
            "--eval-rows",
            "1024",
            "--tolerance",
            "0",
            "--device",
            "cuda",
        ]
        return ["fit", demo_cache, folder / f"fit-{steps}", "--steps", steps, *how]

    def judged(heads: str) -> list[object]:
        how = ["--baselines", "unembedding", "--device", "cuda"]
        return ["eval", demo_lenses, demo_cache, "--heads", heads, *how]

    commands = {
        f"{size} batches{kind}": cache(number, kind)
        for kind in KINDS
        for size, number in (("few", BATCHES), ("many", 2 * BATCHES))
    }
    commands |= {
        "one head": judged("1"),
        "two heads": judged("1,4"),
        "few steps": fit(STEPS),
        "many steps": fit(2 * STEPS),
    }
    texts = {name: [str(part) for part in arguments] for name, arguments in commands.items()}
    (done,) = in_child({"gpus": 1, "commands": texts, "checks": ["a_step_of_a_fit_does_not_wait"]})
    return done


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_of_a_cache_waits_for_the_copies_of_the_one_before_alone(
    ended: dict[str, Any], kind: str
) -> None:
    grown = growth(ended[f"few batches{kind}"], ended[f"many batches{kind}"])
    assert ended[f"many batches{kind}"]["waits"], "it did not run on the GPU"
    expected = {} if kind == " of moments" else EACH_BATCH_OF_A_CACHE  # nothing of a batch is copied back
    assert {place: count / BATCHES for place, count in grown.items()} == expected


def test_a_head_that_is_judged_waits_no_more_than_it_must(ended: dict[str, Any]) -> None:
    grown = growth(ended["one head"], ended["two heads"])
    assert grown, "it was not judged on the GPU"
    assert {place: count / LAYERS for place, count in grown.items()} == EACH_HEAD_THAT_IS_JUDGED


def test_a_step_of_a_fit_waits_no_more_than_it_must(ended: dict[str, Any]) -> None:
    grown = growth(ended["few steps"], ended["many steps"])
    assert grown, "the fit did not run on the GPU"
    more = {p: n / STEPS for p, n in grown.items() if n / STEPS > EACH_STEP_OF_A_FIT.get(p, 0)}
    assert more == {}


def test_with_the_kernel_a_step_of_a_fit_does_not_wait(ended: dict[str, Any]) -> None:
    assert ended["a_step_of_a_fit_does_not_wait"] is None, ended["a_step_of_a_fit_does_not_wait"]
