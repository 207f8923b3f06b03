"""SmolLM2, a small cache of it and lenses of two layers, made once for all processes of the tests."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock

from alens import HeadReader, load_lenses

ROOT = Path(__file__).parents[2]
MODEL = ROOT / ".real" / "smollm2"
STORIES = ROOT / "benchmarks" / "real" / "stories.parquet"
LIMIT_S = 3600
"""Only a process that hangs takes so long, even on a busy machine."""

BY_STORY = ("--document-column", "story", "--exact-teacher")
"""How the caches of these tests are written."""

LAYERS = (18, 23)
"""What is cached: heads 23.0 and 23.1 move names, 23.3 says much about the next token, 18.7 hardly anything."""

Made = Callable[[str, Callable[[Path], None]], Path]


def alens(*arguments: object, threads: int = 1) -> None:
    """`alens ARGUMENTS`, as a process of its own that ends well."""
    done = subprocess.run(
        [sys.executable, "-m", "alens", *map(str, arguments)],
        env={**os.environ, "OMP_NUM_THREADS": str(threads)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """The directory of the model. Skips where it was not fetched: a test downloads nothing."""
    if not MODEL.exists():
        pytest.skip(f"{MODEL} is not there: `make real-model` fetches it, where there is a network")
    return MODEL


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """`made(name, make)`: the path that `make(path)` writes, by the first process that asks for it."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "real"
    folder.mkdir(exist_ok=True)

    def shared(name: str, make: Callable[[Path], None]) -> Path:
        with FileLock(folder / f"{name}.lock"):
            if not (folder / f"{name}.whole").exists():
                make(folder / name)
                (folder / f"{name}.whole").touch()
        return folder / name

    return shared


@pytest.fixture(scope="session")
def real_cache(smollm2: Path, made: Made) -> Path:
    """A sealed cache of layers 18 and 23, 8 shards of 2,048 rows, the last of held-out stories. Shared: never write to it.

    With a third of these rows the closed form of the heads that move names says nothing yet.
    """

    def make(store: Path) -> None:
        layers = ",".join(map(str, LAYERS))
        size = ("--seq-len", "128", "--max-rows", "16384", "--rows-per-shard", "2048")
        alens("cache", smollm2, STORIES, store, *BY_STORY, *size, "--layers", layers, threads=2)

    return made("cache", make)


@pytest.fixture(scope="session")
def real_lenses(real_cache: Path, made: Made) -> Path:
    """Lenses of all heads of both layers, in closed form. Shared: never write to it."""
    return made("lenses", lambda lenses: alens("fit", real_cache, lenses, "--lens", "regression"))


@pytest.fixture(scope="session")
def real_reader(real_lenses: Path) -> HeadReader:
    """The model with these lenses."""
    return HeadReader(load_lenses(real_lenses), device="cpu")


@pytest.fixture(scope="session")
def plain_model(smollm2: Path) -> Any:
    """The model as transformers alone loads it, in float32."""
    from transformers import AutoModelForCausalLM

    where = {"pretrained_model_name_or_path": smollm2, "gguf_file": gguf_name(smollm2)}
    return AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32).eval().requires_grad_(False)


@pytest.fixture(scope="session")
def plain_tokenizer(smollm2: Path) -> Any:
    """The tokenizer as transformers alone loads it."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(smollm2, gguf_file=gguf_name(smollm2))


def gguf_name(model: Path) -> str | None:
    """The GGUF file in the directory; None in one that an earlier version made of it."""
    return next((path.name for path in model.glob("*.gguf")), None)
