"""`alens effects` from the command line, and what `alens info` and `alens verify` say of effects."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from alens.store.effect_reader import open_effects

from ..damage import flip


def test_effects_are_measured_said_by_info_and_mended_after_verify(
    copy_of: Callable[[Path], Path], demo_cache: Path, run_alens: Any
) -> None:
    store = copy_of(demo_cache)
    assert "effects: not measured" in run_alens("info", store).stdout
    outcome = run_alens("effects", store, "--rows", 512, "--heads", "3.1,3.4", "--device", "cpu")
    assert outcome.code == 0, outcome
    assert "of 2 heads on 504 rows" in outcome.stdout and "1,008 effects" in outcome.stdout
    assert "1,008 effects of heads on rows to measure: about" in outcome.stderr
    assert "a row and head" in outcome.stderr
    assert "effects: of 2 heads, on up to 504 rows" in run_alens("info", store).stdout
    before = open_effects(store).delta(3)
    flip(next((store / "effects").rglob("*.npy")))
    outcome = run_alens("verify", store, "--repair")
    assert outcome.code == 1
    assert "run `alens effects` again, with the same arguments" in outcome.stdout
    assert run_alens("verify", store).code == 0
    assert run_alens("effects", store, "--rows", 512, "--heads", "3.1,3.4", "--device", "cpu").code == 0
    assert (open_effects(store).delta(3) == before).all()


def test_what_makes_no_sense_is_refused_in_one_line(demo_cache: Path, tmp_path: Path, run_alens: Any) -> None:
    for arguments, says in (
        ((tmp_path / "nothing",), "is not a cache"),
        ((demo_cache, "--heads", "3.9"), "head 9 does not exist"),
        ((demo_cache, "--worker", "2/2"), "worker 2/2 does not exist"),
        ((demo_cache, "--model", tmp_path), "is not a model directory"),
    ):
        outcome = run_alens("effects", *arguments)
        assert outcome.code == 2 and outcome.stderr.count("\n") <= 2 and says in outcome.stderr, outcome
