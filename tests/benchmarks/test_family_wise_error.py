"""How often `alens locate` and `alens compare` name a head where none differs, by simulation, for any spread."""

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from scipy.stats import binom

SIMULATIONS = Path(__file__).parents[2] / "benchmarks" / "false_alarms"
DRAWS = 400
MOST = int(binom.ppf(0.999, DRAWS, 0.06)) / DRAWS
"""A test with an error of 0.06 exceeds this share once in a thousand times: 0.10."""


def loaded(name: str) -> Iterator[ModuleType]:
    """A module of the benchmarks, by its path."""
    spec = importlib.util.spec_from_file_location(f"simulated_{name}", SIMULATIONS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.fixture(scope="module")
def simulation() -> Iterator[ModuleType]:
    yield from loaded("locate")


@pytest.fixture(scope="module")
def comparisons() -> Iterator[ModuleType]:
    yield from loaded("compare")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sizes", "spread", "alike", "form"),
    [
        ((8, 8), 1.0, 0.0, "normal"),
        ((8, 8), 4.0, 0.0, "normal"),
        ((10, 10), 4.0, 0.7, "normal"),
        ((20, 20), 4.0, 0.0, "normal"),
        ((8, 24), 4.0, 0.0, "normal"),
        ((24, 8), 4.0, 0.0, "normal"),
        ((10, 10), 4.0, 0.0, "Student's t, 3 degrees"),
        ((10, 10), 1.0, 0.0, "chi-squared, 3 degrees"),
    ],
)
def test_some_head_is_named_in_one_of_twenty_draws_of_nothing(
    simulation: ModuleType, sizes: tuple[int, int], spread: float, alike: float, form: str
) -> None:
    asked = {"heads": 24, "form": form, "alike": alike, "draws": DRAWS, "permutations": 299}
    assert simulation.named(simulation.by_locate, sizes, spread, **asked) <= MOST


@pytest.mark.slow
def test_relabelling_alone_names_many_where_the_prompts_spread_more(simulation: ModuleType) -> None:
    """The fault that flips are there for."""
    asked = {"heads": 24, "draws": DRAWS, "permutations": 299}
    assert simulation.named(simulation.by_relabelling, (8, 8), 4.0, **asked) > 1.5 * MOST
    assert simulation.named(simulation.by_relabelling, (6, 18), 4.0, **asked) > 2 * MOST


@pytest.mark.slow
@pytest.mark.parametrize("spread", [1.0, 4.0])
def test_pairs_hold_whatever_the_spread(simulation: ModuleType, spread: float) -> None:
    asked = {"heads": 24, "draws": DRAWS, "permutations": 299}
    assert simulation.named(simulation.in_pairs, (10, 10), spread, **asked) <= MOST


@pytest.mark.slow
def test_scores_with_a_long_tail_below_hold_without_controls(simulation: ModuleType) -> None:
    asked = {"form": "chi-squared, 3 degrees", "heads": 24, "draws": DRAWS, "permutations": 299}
    assert simulation.named(simulation.without_controls, (10, 10), 1.0, **asked) <= MOST


@pytest.mark.slow
def test_a_head_that_differs_is_found_about_as_often_as_by_relabelling_alone(simulation: ModuleType) -> None:
    asked = {"alike": 0.5, "shift": 1.8, "heads": 24, "draws": DRAWS, "permutations": 299}
    ours, alone = (
        simulation.named(test, (10, 10), 1.0, **asked)
        for test in (simulation.by_locate, simulation.by_relabelling)
    )
    assert alone > 0.6 and ours > alone - 0.06


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sizes", "concentrations"),
    [((10, 10), (20, 20)), ((10, 10), (20, 4)), ((30, 10), (20, 4)), ((10, 30), (4, 20))],
)
def test_some_head_has_changed_in_one_of_twenty_comparisons_of_nothing(
    comparisons: ModuleType, sizes: tuple[int, int], concentrations: tuple[float, float]
) -> None:
    tests = [comparisons.by_compare] + [comparisons.in_pairs] * (sizes[0] == sizes[1])
    shares = comparisons.named(tests, sizes, concentrations, heads=12, draws=DRAWS, permutations=199)
    assert max(shares) <= MOST


@pytest.mark.slow
def test_shuffled_labels_alone_name_many_where_few_prompts_spread_more(comparisons: ModuleType) -> None:
    (share,) = comparisons.named(
        [comparisons.by_labels], (30, 10), (20, 4), heads=12, draws=100, permutations=199
    )
    assert share > 0.9
