"""The one public door: few names, each documented, nothing heavy before it is asked for."""

import subprocess
import sys

import pytest

import alens

HEAVY = (
    "torch", "numpy", "zarr", "deepspeed", "transformers", "transformer_lens", "datasets", "safetensors",
    "click", "rich",
)  # fmt: skip


def test_there_are_at_most_nine_names() -> None:
    assert len(alens.__all__) <= 9


@pytest.mark.parametrize("name", alens.__all__)
def test_every_name_loads_and_says_what_it_is(name: str) -> None:
    found = getattr(alens, name)
    assert found.__doc__ and not found.__doc__.startswith(f"{name}(")
    assert found.__module__.startswith("alens.")


def test_dir_shows_the_public_names() -> None:
    assert dir(alens) == sorted(alens.__all__)


def test_another_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'alens' has no attribute 'cash'"):
        alens.cash  # noqa: B018 - looking it up is the test


def loaded_after(code: str) -> set[str]:
    """The heavy modules in a new interpreter after `code`."""
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stdout.split()) & set(HEAVY)


def test_importing_alens_loads_nothing_heavy() -> None:
    assert loaded_after("import alens") == set()


def test_the_command_line_loads_click_alone_before_a_command_runs() -> None:
    assert loaded_after("import alens.cli") == {"click"}
