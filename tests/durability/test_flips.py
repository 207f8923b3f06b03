"""One flipped bit, or a file cut short: a reader gives exactly the right numbers, or an error that names what is damaged.

Positions and bits are drawn from a seed; of the small documents every position is tried.
"""

import collections
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from alens import AlensError, open_cache

FILES = [
    "plan.json",
    "tokens.npy",
    "MANIFEST.json",
    "commits/000001.json",
    "commits/model.json",
    "arrays.zarr/zarr.json",
    "arrays.zarr/targets/zarr.json",
    "arrays.zarr/sites/attn.z/01/zarr.json",
    "arrays.zarr/targets/log_probs/zarr.json",
    "arrays.zarr/stats/output/zarr.json",
    "arrays.zarr/model/W_O/zarr.json",
    "arrays.zarr/sites/attn.z/01/c.1.0.0",
    "arrays.zarr/targets/ids/c.0.0",
    "arrays.zarr/targets/entropy/c.1",
    "arrays.zarr/rows/token/c.1",
    "arrays.zarr/stats/attn.z/01/outer/c.0.0.0.0",
    "arrays.zarr/stats/output/c.1.0",
    "arrays.zarr/model/W_O/c.0.0.0.0",
    "arrays.zarr/model/W_U/c.0.0",
    "arrays.zarr/model/b_U/c.0",
]
"""One file of each kind."""

DOCUMENTS = ["plan.json", "MANIFEST.json", "commits/000001.json", "commits/model.json"]
SEED = 11

Read = Callable[[Any], npt.NDArray[Any]]


class WrongError(Exception):
    """A number that is not that of the cache, or an error that leads nowhere."""


class Specimen:
    """A whole cache in which one file at a time is damaged and mended."""

    def __init__(self, judge: Any, store: Path) -> None:
        self.judge = judge
        self.store = Path(shutil.copytree(judge.undisturbed, store))
        self.outcomes: collections.Counter[str] = collections.Counter()
        self.wrong: list[str] = []

    def everything(self) -> Iterator[tuple[str, Read, npt.NDArray[Any]]]:
        """What can be read of a cache: its name, the reading, and what is right. Shards that do not count are asked for too."""
        for shard, arrays in self.judge.numbers.shards.items():
            for name, expected in arrays.items():
                yield (
                    f"{name} of shard {shard}",
                    lambda cache, n=name, s=shard: cache.read_shard(n, s),
                    expected,
                )
        for name, expected in self.judge.numbers.weights.items():
            yield name, lambda cache, n=name: cache.weights(n), expected
        yield "tokens", lambda cache: cache.tokens, self.judge.numbers.tokens

    def try_damage(self, file: str, damaged: bytes, what: str, only: str = "") -> None:
        path = self.store / file
        whole = path.read_bytes()
        assert damaged != whole
        path.write_bytes(damaged)
        try:
            outcome = self.outcome(file, only)
        except WrongError as error:
            outcome = "wrong"
            self.wrong.append(f"{file}, {what}: {error}")
        except Exception as error:
            outcome = "a traceback"
            self.wrong.append(f"{file}, {what}: {error!r}")
        finally:
            path.write_bytes(whole)
        self.outcomes[outcome] += 1

    def outcome(self, file: str, only: str) -> str:
        try:
            cache = open_cache(self.store)
        except AlensError as error:
            self.assert_names(error, file)
            return "refused"
        refused = False
        for name, read, expected in self.everything():
            if name.startswith(only):
                try:
                    record = read(cache)
                except AlensError as error:
                    self.assert_names(error, file)
                    refused = True
                else:
                    right = (record.shape, record.dtype) == (expected.shape, expected.dtype)
                    if not right or np.asarray(record).tobytes() != expected.tobytes():
                        raise WrongError(f"{name} reads wrong")
        return "refused in part" if refused else "read right"

    def assert_names(self, error: AlensError, file: str) -> None:
        """The file, or the shard or record that it belongs to."""
        text, name = str(error), Path(file).name
        shard = (
            name.split(".")[1] if name.startswith("c.") else str(int(name[:6])) if name[:6].isdigit() else ""
        )
        named = file in text or (shard and (f"shard {shard}" in text or f"{int(shard):06d}.json" in text))
        if not named or "\n" in text:
            raise WrongError(f"the error does not name it: {text}")

    def assert_never_wrong(self) -> None:
        print(f"\n{sum(self.outcomes.values())} damages:", dict(self.outcomes))
        if self.wrong:
            pytest.fail(f"{len(self.wrong)} of them wrong:\n" + "\n".join(self.wrong[:12]), pytrace=False)


def flipped(whole: bytes, position: int, bit: int) -> bytes:
    return whole[:position] + bytes([whole[position] ^ 1 << bit]) + whole[position + 1 :]


def flips(whole: bytes, count: int, draw: random.Random) -> Iterator[tuple[str, bytes]]:
    for _ in range(count):
        position, bit = draw.randrange(len(whole)), draw.randrange(8)
        yield f"bit {bit} of byte {position}", flipped(whole, position, bit)


def place(whole: bytes, position: int, bit: int) -> str:
    """Where in the text the bit is."""
    return f"bit {bit} of byte {position} (in {whole[max(0, position - 20) : position]!r}, {whole[position : position + 20]!r})"


def cuts(whole: bytes, count: int, draw: random.Random) -> Iterator[tuple[str, bytes]]:
    for length in [0, len(whole) - 1, *(draw.randrange(1, len(whole)) for _ in range(count - 2))]:
        yield f"cut to {length}", whole[:length]


@pytest.fixture
def specimen(judge: Any, memory_folder: Path) -> Specimen:
    return Specimen(judge, memory_folder / "store")


def damage_each_kind(specimen: Specimen, num_flips: int, num_cuts: int) -> None:
    draw = random.Random(SEED)
    for file in FILES:
        whole = (specimen.store / file).read_bytes()
        for what, damaged in (*flips(whole, num_flips, draw), *cuts(whole, num_cuts, draw)):
            specimen.try_damage(file, damaged, what)
    specimen.judge.assert_whole(specimen.store)
    specimen.assert_never_wrong()


def test_damages_of_each_kind_of_file(specimen: Specimen) -> None:
    damage_each_kind(specimen, 3, 2)


@pytest.mark.slow
def test_many_damages_of_each_kind_of_file(specimen: Specimen) -> None:
    damage_each_kind(specimen, 12, 6)


def test_a_file_that_is_not_there(specimen: Specimen) -> None:
    for file in FILES:
        path, aside = specimen.store / file, specimen.store.parent / "aside"
        path.rename(aside)
        try:
            specimen.outcome(file, "")
        finally:
            aside.rename(path)


@pytest.mark.slow
@pytest.mark.parametrize(("array", "file"), [("rows/token of shard 1", "rows/token"), ("b_U", "model/b_U")])
def test_every_bit_of_an_array_s_metadata(specimen: Specimen, array: str, file: str) -> None:
    """Zarr gives fill values for a file that it looks for under a wrong name, without a word."""
    file = f"arrays.zarr/{file}/zarr.json"
    whole = (specimen.store / file).read_bytes()
    for position in range(len(whole)):
        for bit in range(8):
            specimen.try_damage(file, flipped(whole, position, bit), place(whole, position, bit), array)  # fmt: skip
    specimen.assert_never_wrong()


@pytest.mark.parametrize("before_after", [(b'"separator": "."', b'"separator": "/"'), (b'"name": "default"', b'"name": "v2"')])  # fmt: skip
@pytest.mark.parametrize("array", ["rows/token", "model/b_U"])
def test_metadata_that_gives_files_other_names(
    specimen: Specimen, array: str, before_after: tuple[bytes, bytes]
) -> None:
    file = f"arrays.zarr/{array}/zarr.json"
    whole = (specimen.store / file).read_bytes()
    specimen.try_damage(file, whole.replace(*before_after), f"{before_after[1]!r}")
    specimen.assert_never_wrong()


@pytest.mark.slow
@pytest.mark.parametrize("file", DOCUMENTS)
def test_every_byte_of_a_document(specimen: Specimen, file: str) -> None:
    draw = random.Random(SEED)
    whole = (specimen.store / file).read_bytes()
    for position in range(len(whole)):
        bit = draw.randrange(8)
        specimen.try_damage(file, flipped(whole, position, bit), place(whole, position, bit), "rows/token")  # fmt: skip
    specimen.assert_never_wrong()


@pytest.mark.parametrize("file", ["plan.json", "MANIFEST.json"])
def test_what_a_cache_says_of_itself(judge: Any, specimen: Specimen, file: str) -> None:
    """A plan is the plan that was written or none; so is a fingerprint, by which fits and lenses tell caches apart."""
    draw, path, wrong = random.Random(SEED), specimen.store / file, []
    whole = path.read_bytes()
    for what, damaged in flips(whole, 150, draw):
        path.write_bytes(damaged)
        try:
            cache = open_cache(specimen.store)
        except AlensError:
            continue
        if cache.plan != judge.plan or cache.fingerprint not in (None, judge.fingerprint):
            wrong.append(what)
    assert not wrong
