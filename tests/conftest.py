"""What tests share: small sealed caches of the demo, lenses, copies of both, and the command line, run in two ways."""

import contextlib
import dataclasses
import io
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

# Before torch and the hub's library are imported: offline, the same sums and widths of tables on every machine.
os.environ.update(HF_HUB_OFFLINE="1", OMP_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false", COLUMNS="80")
if "ALENS_TEST_GPU" not in os.environ:  # `make test-gpu` sets it
    os.environ["CUDA_VISIBLE_DEVICES"] = ""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings
from safetensors.torch import load_file, save_file

from alens import CacheRequest, FitRequest, cli, demo, fit_lenses, open_cache, write_cache
from alens.cli import progress_lines as lines
from alens.effects.measure_effects import measure_effects
from alens.effects.settings import EffectRequest, EffectSettings
from alens.fit.settings import FitSettings
from alens.remote.patience import Patience
from alens.store.schema import CacheSettings
from alens.text.corpus import CorpusOptions

from .fake_hub import Hub, serving
from .object_servers import FaultyServer, S3Server, faulty_server, s3_server
from .outcomes import Outcome

torch.set_num_threads(1)
for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT", "FORCE_COLOR"):
    os.environ.pop(name, None)  # of a launcher or a terminal

# The same examples each time, and no judgement by the clock: too_slow fails where the machine is busy.
settings.register_profile(
    "alens", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("alens")

DEMO_SETTINGS = CacheSettings(
    seq_len=64,
    rows_per_shard=1024,
    max_rows=6144,
    batch_size=8,
    top_k=16,
    tail_samples=16,
    exact_teacher=True,
)
PROCESS_LIMIT_S = 400
"""Only a process that hangs takes so long, even on a busy machine."""


HELD = """\
import contextlib, sys, time
from pathlib import Path
from alens import cli
from alens.cli import watch

folder, pattern, held, *sys.argv[1:] = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), *sys.argv[4:]
stopping, watching = watch.stopping, watch.watching


@contextlib.contextmanager
def remembered(*arguments):
    global told
    with stopping(*arguments) as told:
        yield told


@contextlib.contextmanager
def holding():
    with watching() as report:
        def hold(progress):
            report(progress)
            if any(folder.glob(pattern)):
                held.touch()
                while not told():
                    time.sleep(0.01)

        yield hold


watch.stopping, watch.watching = remembered, holding
cli.main()
"""


Run = Callable[..., Outcome]


@contextlib.contextmanager
def same_start() -> Iterator[None]:
    """Code inside has the same environment and draws the same numbers, whatever ran before it.

    A fit that runs alone sets the variables of a launcher. ZeRO-3 puts DeepSpeed's own `linear` in the place of
    PyTorch's, which rounds differently in bfloat16. Both are undone at the end.
    """
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    functional = torch.nn.functional
    with mock.patch.dict(os.environ), mock.patch.object(functional, "linear", functional.linear):
        yield


@pytest.fixture(autouse=True)
def every_test_starts_the_same(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each test starts in the same state, and prints no lines of progress: their number depends on the machine's speed."""
    monkeypatch.setattr(lines, "EARLY_S", float("inf"))
    monkeypatch.setattr(lines, "EVERY_S", float("inf"))
    with same_start():
        yield


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef: pytest.FixtureDef[object]) -> Generator[None, object, object]:
    """Fixtures that outlive a test are made before `every_test_starts_the_same`, so they get the same start here."""
    if fixturedef.scope == "function":
        return (yield)
    with same_start():
        return (yield)


@pytest.fixture(scope="session")
def demo_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sealed cache of the demo, 6 shards with the exact teacher. Shared: never write to it, copy it."""
    store = tmp_path_factory.mktemp("shared") / "demo-cache"
    write_cache(CacheRequest(model="demo", corpus="demo", store=store, settings=DEMO_SETTINGS, device="cpu"))
    return store


@pytest.fixture(scope="session")
def demo_lenses(demo_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Lenses of heads 1 and 4 of layers 0 and 3 of the demo. Shared: never write to it, copy it."""
    lenses = tmp_path_factory.mktemp("shared") / "demo-lenses"
    settings = FitSettings(layers=(0, 3), heads=(1, 4), batch_rows=512, eval_rows=1024)
    with mock.patch.dict(os.environ):
        fit_lenses(FitRequest(store=demo_cache, lenses=lenses, settings=settings, device="cpu"))
    return lenses


@pytest.fixture(scope="session")
def demo_effect_lenses(demo_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Effect lenses of heads 1 and 4 of layer 3 of the demo. Shared: never write to it, copy it."""
    folder = tmp_path_factory.mktemp("shared")
    shutil.copytree(demo_cache, folder / "cache")
    effects = EffectSettings(rows=4096, heads="3.1,3.4")
    measure_effects(EffectRequest(store=folder / "cache", settings=effects, device="cpu"))
    settings = FitSettings(lens="effect")
    with mock.patch.dict(os.environ):
        fit_lenses(
            FitRequest(store=folder / "cache", lenses=folder / "lenses", settings=settings, device="cpu")
        )
    return folder / "lenses"


@pytest.fixture(scope="session")
def document_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sealed cache of layers 0 and 3 of the demo by document, 6 shards, the last of held-out documents. Shared."""
    store = tmp_path_factory.mktemp("shared") / "document-cache"
    settings = dataclasses.replace(DEMO_SETTINGS, layers=(0, 3))
    options = CorpusOptions(document_column="document")
    write_cache(
        CacheRequest(
            model="demo", corpus="demo", store=store, settings=settings, options=options, device="cpu"
        )
    )
    return store


@pytest.fixture(scope="session")
def residual_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sealed cache of layers 1 and 2 of the demo with `resid_post`, 4 shards with the exact teacher. Shared."""
    store = tmp_path_factory.mktemp("shared") / "residual-cache"
    settings = CacheSettings(
        seq_len=32, rows_per_shard=512, max_rows=2048, layers=(1, 2), top_k=8, tail_samples=8, sites=("resid_post",), exact_teacher=True
    )  # fmt: skip
    write_cache(CacheRequest(model="demo", corpus="demo", store=store, settings=settings, device="cpu"))
    return store


Change = Callable[[dict[str, torch.Tensor]], None]


def changed_demo(folder: Path, change: Change) -> Path:
    """Writes the demo's directory to `folder`, in float32, with weights that `change` changed in place."""
    folder.mkdir(parents=True)
    for path in demo.MODEL.iterdir():
        shutil.copyfile(path, folder / path.name)
    weights = {name: value.float() for name, value in load_file(demo.MODEL / "model.safetensors").items()}
    change(weights)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return folder


@pytest.fixture(scope="session")
def change_demo() -> Callable[[Path, Change], Path]:
    """`changed_demo`."""
    return changed_demo


def rotate(weights: dict[str, torch.Tensor]) -> None:
    """An orthogonal change of basis in each head: z becomes z R, W_O becomes R^T W_O; the model stays the same."""
    torch.manual_seed(0)
    for layer in range(4):
        R_HEE = torch.linalg.qr(torch.randn(6, 32, 32)).Q
        name = f"transformer.h.{layer}.attn"
        value_DHE = weights[f"{name}.c_attn.weight"][:, 384:].view(192, 6, 32)
        value_DHE.copy_(torch.einsum("dhe,hef->dhf", value_DHE, R_HEE))
        bias_HE = weights[f"{name}.c_attn.bias"][384:].view(6, 32)
        bias_HE.copy_(torch.einsum("he,hef->hf", bias_HE, R_HEE))
        output_HED = weights[f"{name}.c_proj.weight"].view(6, 32, 192)
        output_HED.copy_(R_HEE.mT @ output_HED)


@pytest.fixture(scope="session")
def rotated_cache(demo_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The rows of `demo_cache`, layers 0 and 3, of the demo with another basis in each head. Shared."""
    folder = tmp_path_factory.mktemp("rotated")
    model = str(changed_demo(folder / "model", rotate))
    settings = dataclasses.replace(open_cache(demo_cache).plan.settings, layers=(0, 3))
    store = folder / "cache"
    write_cache(CacheRequest(model=model, corpus="demo", store=store, settings=settings, device="cpu"))
    return store


@pytest.fixture(scope="session")
def model() -> Any:
    """The demo's model, loaded in float32 on the CPU. Shared."""
    from alens.model import models

    return models.load(models.find("demo"), dtype="float32", device="cpu")


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    """An empty hub on this machine."""
    with serving() as running:
        yield running


@pytest.fixture(scope="session")
def moto() -> Iterator[S3Server]:
    """An S3 server in a process of its own: use `s3`."""
    with s3_server() as running:
        yield running


@pytest.fixture
def s3(moto: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    """An S3 server on this machine, and the variables that lead to it; `new_bucket` makes an empty bucket."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto.endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return moto


@pytest.fixture
def faulty(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyServer]:
    """A server that stands before `s3` and fails as it is told."""
    with faulty_server(s3.endpoint) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.endpoint)
        yield server


@pytest.fixture(scope="session")
def demo_address(moto: S3Server, demo_cache: Path) -> str:
    """Where `demo_cache` lies on the S3 server. Shared: use `far_demo`."""
    return moto.upload(demo_cache)


@pytest.fixture
def far_demo(demo_address: str, s3: S3Server, impatient: None) -> str:
    """The address of a copy of `demo_cache`, never to be written; copies of what is read go to a new folder."""
    return demo_address


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Requests are given up within a second; copies of what is read go to a new folder."""
    patience = Patience(tries=3, silence_s=0.4, request_s=20, first_wait_s=0.01)
    monkeypatch.setattr("alens.remote.objects.PATIENCE", patience)
    monkeypatch.setenv("ALENS_STAGE", str(tmp_path / "stage"))


@pytest.fixture
def small_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A plan tries the disk with 2 MB, not 256, and reads all the text that is wanted, however long it takes."""
    from alens.planning import disk, token_count

    monkeypatch.setattr(token_count, "LEAST_PIECES", 10**9)
    monkeypatch.setattr(disk, "MOST_BYTES", 2 * 2**20)
    monkeypatch.setattr(disk, "PIECE_BYTES", 2**20)


@pytest.fixture
def copy_of(tmp_path: Path) -> Callable[[Path], Path]:
    """Copies a directory into the folder of this test, and gives the copy."""

    def copy(source: Path) -> Path:
        taken = len(list(tmp_path.glob("copy-*")))
        return Path(shutil.copytree(source, tmp_path / f"copy-{taken}" / source.name))

    return copy


@pytest.fixture
def run_alens() -> Run:
    """Runs `alens ARGUMENTS` in this process: (code, stdout, stderr)."""

    def run(*arguments: object, env: Mapping[str, str] | None = None) -> Outcome:
        out, err = io.StringIO(), io.StringIO()
        with (
            mock.patch.dict(os.environ, env or {}),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            code = cli.run([str(argument) for argument in arguments])
        return Outcome(code, out.getvalue(), err.getvalue())

    return run


@pytest.fixture
def run_alens_process() -> Run:
    """Runs `python -m alens ARGUMENTS` as a process of its own: (code, stdout, stderr)."""

    def run(*arguments: object, env: Mapping[str, str] | None = None) -> Outcome:
        done = subprocess.run(
            [sys.executable, "-m", "alens", *map(str, arguments)],
            env={**os.environ, **(env or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PROCESS_LIMIT_S,
        )
        return Outcome(done.returncode, done.stdout, done.stderr)

    return run


Hold = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def held_alens(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hold]:
    """`held_alens(folder, pattern, ARGUMENTS)`: starts `alens ARGUMENTS` as a process, and holds it in the middle of its work.

    Once there is a file in `folder` that matches `pattern`, it waits for a signal that tells it to stop.
    """
    started: list[subprocess.Popen[str]] = []

    def hold(folder: Path, pattern: str, *arguments: object) -> "subprocess.Popen[str]":
        held = tmp_path_factory.mktemp("held") / "held"
        process = subprocess.Popen(
            [sys.executable, "-c", HELD, str(folder), pattern, str(held), *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        end = time.monotonic() + PROCESS_LIMIT_S
        while not held.exists():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < end, f"not within {PROCESS_LIMIT_S} s: {folder}/{pattern}"
            time.sleep(0.02)
        return process

    yield hold
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()
