"""The specimens that are fuzzed: small caches, lenses, fits, sweeps, exports, bases and models, made by the commands themselves."""

import contextlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from alens import FitRequest, cli, demo, fit_lenses
from alens.errors import StoppedError
from alens.fit.settings import FitSettings

ROWS = ["--seq-len", "16", "--rows-per-shard", "64", "--max-rows", "256", "--batch-size", "2"]
CACHE = [
    *ROWS,
    "--top-k",
    "4",
    "--tail-samples",
    "4",
    "--layers",
    "1,2",
    "--exact-teacher",
    "--device",
    "cpu",
]
FIT = [
    "--layers",
    "2",
    "--heads",
    "1,4",
    "--steps",
    "4",
    "--batch-rows",
    "32",
    "--eval-rows",
    "64",
    "--device",
    "cpu",
]
BASIS = [
    "--heads",
    "1",
    "--rows",
    "32",
    "--sequences",
    "2",
    "--directions",
    "3",
    "--top",
    "3",
    "--compare",
    "none",
]
SWEEP = """\
layers = [2]
heads = [1]
batch_rows = 32
eval_rows = 64
steps = 2
[grid]
lr = [0.01, 0.02]
"""
TEXT_LINES = 400


@dataclass(frozen=True)
class Trial:
    """A command that reads a specimen. It names the places of specimens as `{cache}`, `{lenses}`, ...; `{out}` is a new place."""

    command: tuple[str, ...]
    compares: bool = False
    """Whether its output must stay the same whenever it ends with 0 after a byte was changed without its hash."""
    notices: bool = False
    """Whether it must not end with 0 after such a change."""


@dataclass(frozen=True)
class Kind:
    """One kind of document or file of a specimen."""

    name: str
    files: tuple[str, ...]
    """Glob patterns, relative to the folder of all specimens."""
    trials: tuple[Trial, ...]
    hashed: bool = True
    """Whether alens keeps a hash of it, in it or in a document beside it."""
    absent: bool = False
    """Whether a damaged one counts as missing: then the output may differ."""


def _trial(command: str, *, compares: bool = False, notices: bool = False) -> Trial:
    return Trial(tuple(command.split()), compares, notices)


VERIFY = _trial("verify {cache}", notices=True)
OF_A_CACHE = (
    _trial("info {cache} --json", compares=True),
    VERIFY,
    _trial("eval {lenses} {cache} --json --rows 64", compares=True),
    _trial("info {cache} --array 3", compares=True),
    _trial("fit {cache} {out} " + " ".join(FIT)),
    _trial("sweep {config} {cache} {out} --device cpu"),
)
OF_LENSES = (
    _trial("info {lenses} --json", compares=True),
    _trial("eval {lenses} {cache} --json --rows 64", compares=True),
    _trial("export {lenses} {out}"),
    _trial("read {lenses} hello --json", compares=True),
    _trial("publish {lenses} --out {out} --repository a/b"),
)
RESUMED = (_trial("fit {cache} {stopped} " + " ".join(FIT)),)
SWEPT = (
    _trial("sweep {config} {cache} {sweep} --table --json", compares=True),
    _trial("sweep {config} {cache} {sweep} --device cpu"),
)
IMPORTED = (_trial("import {export} {out} --model demo"),)
A_MODEL = (_trial("cache {model} {text} {out} " + " ".join(CACHE)),)

KINDS = (
    Kind("plan", ("cache/plan.json",), OF_A_CACHE),
    Kind("record", ("cache/commits/0*.json",), OF_A_CACHE, absent=True),
    Kind("skeleton", ("cache/commits/model.json",), OF_A_CACHE, absent=True),
    Kind("manifest", ("cache/MANIFEST.json",), OF_A_CACHE, absent=True),
    Kind("metadata", ("cache/arrays.zarr/**/zarr.json",), OF_A_CACHE),
    Kind("tokens", ("cache/tokens.npy", "cache/documents.npy"), OF_A_CACHE),
    Kind("numbers", ("cache/arrays.zarr/**/c.*",), OF_A_CACHE),
    Kind(
        "claim", ("claimed/plan.claim",), (_trial("info {claimed}"), _trial("verify {claimed}")), hashed=False
    ),
    Kind("lens.json", ("lenses/lens.json",), OF_LENSES),
    Kind("lens", ("lenses/*.safetensors",), OF_LENSES),
    Kind("fit.json", ("stopped/fit.json",), RESUMED),
    Kind("checkpoint", ("stopped/checkpoints/*/*",), RESUMED),
    Kind("log", ("stopped/log.jsonl", "stopped/stopped.json"), RESUMED, hashed=False),
    Kind("sweep", ("sweep/sweep.json", "sweep/*/result.json", "sweep/*/held-out.safetensors"), SWEPT),
    Kind("export", ("export/config.json", "export/*.safetensors"), IMPORTED),
    Kind("basis", ("basis.safetensors",), (_trial("basis {lenses} {cache} --save {basis}"),), hashed=False),
    Kind(
        "attention-lens",
        ("published-layer-2.ckpt",),
        (_trial("import {published} {out} --model demo"),),
        hashed=False,
    ),
    Kind("tuned-lens", ("tuned/*",), (_trial("import {tuned} {out} --model demo"),), hashed=False),
    Kind("config.json", ("model/config.json",), A_MODEL, hashed=False),
    Kind("tokenizer", ("model/tokenizer*.json",), A_MODEL, hashed=False),
    Kind("weights", ("model/model.safetensors",), A_MODEL, hashed=False),
)

PLACES = {
    "published": "published-layer-2.ckpt",
    "basis": "basis.safetensors",
    "config": "sweep.toml",
    "text": "text.txt",
}
"""The path of each specimen that does not lie under its name."""


def place(folder: Path, name: str) -> Path:
    """Where a specimen lies in the folder of all."""
    return folder / PLACES.get(name, name)


def make(folder: Path, run: Callable[[list[str]], int] = cli.run) -> None:
    """Write every specimen into `folder`, which is there and empty."""
    import pyarrow.parquet

    rows = pyarrow.parquet.read_table(demo.CORPUS, columns=["text"])["text"][:TEXT_LINES]
    (folder / "text.txt").write_text("\n".join(rows.to_pylist()))
    (folder / "sweep.toml").write_text(SWEEP)
    shutil.copytree(demo.MODEL, folder / "model")
    at = {
        name: str(place(folder, name)) for name in ("cache", "lenses", "stopped", "export", "sweep", "basis")
    }
    commands = [
        ["cache", "demo", "demo", at["cache"], *CACHE, "--document-column", "document"],
        ["fit", at["cache"], at["lenses"], *FIT],
        ["export", at["lenses"], at["export"]],
        ["sweep", str(folder / "sweep.toml"), at["cache"], at["sweep"], "--device", "cpu"],
        ["basis", at["lenses"], at["cache"], *BASIS, "--save", at["basis"]],
    ]  # fmt: skip
    for command in commands:
        code = run(command)
        assert code == 0, (command, code)
    _stop_a_fit(folder)
    make_claim(folder)
    _publish(folder)


def make_claim(folder: Path) -> None:
    """Make a cache whose plan another process is making."""
    (folder / "claimed").mkdir()
    (folder / "claimed" / "plan.claim").write_text(json.dumps({"host": "elsewhere", "pid": 7, "token": "0a"}))


def _stop_a_fit(folder: Path) -> None:
    """Make the fit of the lenses again, but stop it after its second step, with its state saved."""
    settings = FitSettings(layers=(2,), heads=(1, 4), steps=4, batch_rows=32, eval_rows=64)
    request = FitRequest(store=folder / "cache", lenses=folder / "stopped", settings=settings, device="cpu")
    steps = [0]
    with contextlib.suppress(StoppedError):
        fit_lenses(
            request,
            report=lambda progress: steps.append(progress.done if progress.stage == "fit" else 0),
            should_stop=lambda: max(steps) > 1,
        )
    assert (folder / "stopped" / "checkpoints").is_dir()


def _publish(folder: Path) -> None:
    """Make a checkpoint and a directory as two other programs leave them."""
    said = json.loads((demo.MODEL / "config.json").read_text())
    d_model, d_vocab, heads, layers = (said[name] for name in ("n_embd", "vocab_size", "n_head", "n_layer"))
    linears = {f"attn_lens.linears.{head}.weight": torch.zeros(d_vocab, d_model) for head in range(heads)}
    linears |= {f"attn_lens.linears.{head}.bias": torch.zeros(d_vocab) for head in range(heads)}
    torch.save({"epoch": 0, "state_dict": linears}, place(folder, "published"))
    tuned = folder / "tuned"
    tuned.mkdir()
    said = {"d_model": d_model, "num_hidden_layers": layers, "bias": True, "lens_type": "linear_tuned_lens"}
    (tuned / "config.json").write_text(json.dumps(said))
    state = {f"{index}.weight": torch.zeros(d_model, d_model) for index in range(layers)}
    torch.save(
        state | {f"{index}.bias": torch.zeros(d_model) for index in range(layers)}, tuned / "params.pt"
    )
