"""`alens cache --keep-bits`, `--z-dtype` and `--sites`: how z is stored, asked for by flag or by file."""

import contextlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest

from alens.store import encoding
from alens.store.cache_reader import open_cache

from ..folders import array_hashes, states
from ..judged import of_heads
from ..outcomes import assert_one_line

Copy = Callable[[Path], Path]

CHOICES = {
    "rounded": ["--keep-bits", "4", "--sites", "resid_post,mlp_out"],
    "int8": ["--z-dtype", "int8", "--sites", "mlp_out"],
}
every_choice = pytest.mark.parametrize("choice", sorted(CHOICES))


@pytest.fixture(scope="module")
def stores(
    tmp_path_factory: pytest.TempPathFactory, written: Callable[..., Path], small_options: list[str]
) -> dict[str, Path]:
    """Sealed caches that differ from `small` in how z is stored. Shared: copy them before writing."""
    root = tmp_path_factory.mktemp("encoded")
    return {name: written(root / name, *small_options, *options) for name, options in CHOICES.items()}


# What is stored


def test_flags_reach_the_plan(stores: dict[str, Path]) -> None:
    rounded, int8 = (open_cache(stores[name]).plan.settings for name in ("rounded", "int8"))
    assert (rounded.keep_bits, rounded.z_dtype, rounded.sites) == (4, "float16", ("resid_post", "mlp_out"))
    assert (int8.keep_bits, int8.z_dtype, int8.sites) == (None, "int8", ("mlp_out",))


def test_rounded_z_is_z_rounded(stores: dict[str, Path], small: Path) -> None:
    z_NHE = open_cache(small).z(2, slice(None))
    rounded_NHE = open_cache(stores["rounded"]).z(2, slice(None))
    np.testing.assert_array_equal(rounded_NHE, encoding.round_bits(z_NHE, 4))


def test_8_bit_z_is_z_to_half_a_scale(stores: dict[str, Path], small: Path) -> None:
    cache = open_cache(stores["int8"])
    z_NHE = open_cache(small).z(2, slice(None)).astype(np.float64)
    scale_NH1 = cache.read("scales/attn.z/02", slice(None)).astype(np.float64)[..., None]
    error_NHE = np.abs(cache.z(2, slice(None)) - z_NHE)
    assert (error_NHE <= scale_NH1 * 0.57).all()  # half a scale, and the cast to float16
    assert error_NHE.max() > 0


@every_choice
def test_the_rest_of_a_cache_does_not_depend_on_how_z_is_stored(
    stores: dict[str, Path], small: Path, choice: str
) -> None:
    cache, plain = open_cache(stores[choice]), open_cache(small)
    for name in ("rows/token", "rows/sequence", "rows/position", "targets/ids", "targets/log_probs", "targets/tail_ids"):  # fmt: skip
        np.testing.assert_array_equal(cache.read(name, slice(None)), plain.read(name, slice(None)))


def test_smaller_z_takes_less_room(stores: dict[str, Path], small: Path) -> None:
    def z_bytes(store: Path) -> int:
        return sum(file.stat().st_size for file in (store / "arrays.zarr/sites/attn.z").rglob("c.*"))

    assert z_bytes(stores["int8"]) < 0.52 * z_bytes(small)
    assert z_bytes(stores["rounded"]) < 0.75 * z_bytes(small)


# The same bytes, and only of this plan


@every_choice
def test_bytes_do_not_depend_on_the_number_of_workers(
    run_alens: Any, tmp_path: Path, stores: dict[str, Path], small_options: list[str], choice: str
) -> None:  # fmt: skip
    arguments = ["cache", "demo", "demo", tmp_path / "store", *small_options, *CHOICES[choice]]
    for worker in ("2/3", "0/3", "1/3"):
        assert run_alens(*arguments, "--worker", worker).code == 0
    assert array_hashes(tmp_path / "store") == array_hashes(stores[choice])
    assert open_cache(tmp_path / "store").fingerprint == open_cache(stores[choice]).fingerprint is not None


@every_choice
def test_running_again_writes_nothing(
    run_alens: Any, copy_of: Copy, stores: dict[str, Path], small_options: list[str], choice: str
) -> None:  # fmt: skip
    store = copy_of(stores[choice])
    before = states(store)
    code, out, _ = run_alens("cache", "demo", "demo", store, *small_options, *CHOICES[choice])
    assert (code, out.splitlines()[0]) == (0, f"wrote 0 shards (0 rows) to {store}")
    assert states(store) == before


@every_choice
def test_a_lost_shard_is_written_again_with_the_same_bytes(
    run_alens: Any, copy_of: Copy, stores: dict[str, Path], small_options: list[str], choice: str
) -> None:  # fmt: skip
    store = copy_of(stores[choice])
    (store / "commits/000002.json").unlink()
    (store / "arrays.zarr/sites/attn.z/02/c.2.0.0").write_bytes(b"torn")
    code, out, _ = run_alens("cache", "demo", "demo", store, *small_options, *CHOICES[choice])
    assert (code, out.startswith("wrote 1 shard (128 rows, ")) == (0, True)
    assert array_hashes(store) == array_hashes(stores[choice])


@pytest.mark.parametrize(
    ("choice", "asked", "says"),
    [
        ("rounded", ["--keep-bits", "5", "--sites", "resid_post,mlp_out"], ["keep_bits is 5 (the cache: 4)"]),
        ("rounded", ["--sites", "resid_post,mlp_out"], ["keep_bits is None (the cache: 4)"]),
        ("rounded", ["--keep-bits", "4", "--sites", "mlp_out"], ["sites is ", "mlp_out", "(the cache: ", "resid_post"]),
        ("int8", ["--sites", "mlp_out"], ["z_dtype is float16 (the cache: int8)"]),
        ("int8", ["--z-dtype", "int8"], ["sites is None (the cache: ", "mlp_out"]),
        ("int8", ["--keep-bits", "4", "--sites", "mlp_out"], ["z_dtype is float16 (the cache: int8); keep_bits is 4 (the cache: None)"]),
    ],
)  # fmt: skip
def test_another_way_to_store_z_is_another_plan(
    run_alens: Any, copy_of: Copy, stores: dict[str, Path], small_options: list[str], choice: str, asked: list[str], says: list[str],
) -> None:  # fmt: skip
    store = copy_of(stores[choice])
    before = states(store)
    outcome = run_alens("cache", "demo", "demo", store, *small_options, *asked)
    assert_one_line(outcome, 2, f"{store} holds another plan: ", *says)
    assert states(store) == before


# From a file


@pytest.mark.parametrize(
    "text",
    [
        "keep_bits = 4\nsites = ['resid_post', 'mlp_out']\n",
        "keep-bits = 4\nsites = 'resid_post, mlp_out'\nz_dtype = 'float16'\n",
    ],
)
def test_a_file_may_say_how_z_is_stored(
    run_alens: Any, tmp_path: Path, stores: dict[str, Path], small_options: list[str], text: str
) -> None:
    (tmp_path / "run.toml").write_text(text)
    arguments = ["--config", tmp_path / "run.toml", *small_options, "--worker", "0/4"]
    assert run_alens("cache", "demo", "demo", tmp_path / "store", *arguments).code == 0
    assert open_cache(tmp_path / "store").plan.identity == open_cache(stores["rounded"]).plan.identity


def test_a_flag_beats_the_file(run_alens: Any, tmp_path: Path, small_options: list[str]) -> None:
    (tmp_path / "run.toml").write_text("keep_bits = 4\nsites = ['mlp_out', 'resid_post']\n")
    arguments = ["--config", tmp_path / "run.toml", "--keep-bits", "7", "--sites", "resid_post"]
    options = [*small_options, *arguments, "--worker", "0/4"]
    assert run_alens("cache", "demo", "demo", tmp_path / "store", *options).code == 0
    settings = open_cache(tmp_path / "store").plan.settings
    assert (settings.keep_bits, settings.sites) == (7, ("resid_post",))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("keep_bits = 10", "keep_bits is 10: float16 has 10 mantissa bits"),
        ("keep_bits = 4\nz_dtype = 'int8'", "keep_bits rounds float16, and z_dtype is int8"),
        ("z_dtype = 'float32'", "'float32' is not one of 'float16', 'int8'"),
        ("sites = []", "sites is empty: name resid_post or mlp_out"),
        ("sites = ['mlp_out', 'mlp_out']", "sites is mlp_out,mlp_out: name resid_post or mlp_out, each once"),
        ("sites = 3", "sites is 3: name resid_post or mlp_out"),
    ],
)
def test_a_file_that_asks_for_what_cannot_be(run_alens: Any, tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "run.toml").write_text(text)
    outcome = run_alens("cache", "demo", "demo", tmp_path / "store", "--config", tmp_path / "run.toml")
    assert_one_line(outcome, 2, says)
    assert not (tmp_path / "store").exists()


# What comes after


@every_choice
def test_info_says_how_z_is_stored(run_alens: Any, stores: dict[str, Path], choice: str) -> None:
    body = json.loads(run_alens("info", stores[choice], "--json").stdout)
    assert body["state"] == "sealed"
    collected = {array["name"]: array["dtype"] for array in body["arrays"]}
    assert collected["sites/attn.z/02"] == ("int8" if choice == "int8" else "float16")
    assert collected["sites/mlp_out/02"] == "float16"


@every_choice
def test_lenses_are_fitted_and_judged(
    run_alens: Any, tmp_path: Path, stores: dict[str, Path], choice: str
) -> None:
    options = ["--layers", "2", "--heads", "1", "--steps", "2", "--batch-rows", "64", "--eval-rows", "100"]
    with mock.patch.dict(os.environ), contextlib.suppress(SystemExit):
        fitted = run_alens("fit", stores[choice], tmp_path / "lenses", *options, "--device", "cpu")
    assert fitted.code == 0, fitted.stderr
    judged = run_alens("eval", tmp_path / "lenses", stores[choice], "--json")
    assert judged.code == 0, judged.stderr
    assert len(of_heads(judged.stdout)) == 1
