"""Records what alens does on the bundled demo in one JSON document, to see that a change of form did not change behaviour.

    .venv/bin/python .ci/behaviour.py record TREE OUT > FILE.json
    .venv/bin/python .ci/behaviour.py compare BASE.json BASE_AGAIN.json NEW.json

TREE is a checkout, OUT a new directory to work in. The document holds exit codes, the results of `--json`, the hash of
every file that was written (the contents of JSON files), and every option of every command. What people read (help,
tables, messages) is left out, because its words may change. Differences between two records of the same tree are noise,
mostly times. A record takes some three minutes.
"""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

CACHE = "--seq-len 64 --max-rows 10240 --rows-per-shard 2048 --batch-size 8 --top-k 16 --tail-samples 16"
FIT = "--steps 6 --eval-rows 2048 --batch-rows 256 --seed 3"
PROMPTS = ("He took her hand and", "It was a dark and stormy")

FITS = {
    "linear": "",
    "low-rank": "--lens low-rank --lens-option rank=8",
    "summed": "--lens summed --layer 2",
    "translator": "--lens translator",
    "tuned": "--lens tuned --site resid_post",
    "reverse-kl": "--objective reverse-kl --layer 3",
    "last-position": "--objective last-position --layer 1",
    "input-relevance": "--objective input-relevance --layer 1 --heads 0,1",
    "zero": "--zero 1 --layer 2",
    "exact": "--teacher exact --layer 3",
    "narrow": "--top-k 8 --tail-samples 8 --min-position 4 --layer 3",
}

EXITS = {
    "no command": "nothing",
    "no model": "cache no-such-model demo bad-cache",
    "no layer": "fit cache bad-lenses --layer 99",
    "no design": "fit cache bad-lenses --lens nothing",
    "not a cache": "info text.txt",
    "not lenses": "read cache x",
    "no cache": "verify no-such-cache",
    "no number": "fit cache bad-lenses --steps many",
    "other request": "cache demo demo cache --seq-len 32 --max-rows 4096",
}
"""Wrong requests, by what is wrong with them."""

OPTIONS = """
import click, importlib, json
from alens.cli import COMMANDS, group
def kind(type_):
    said = {"type": type(type_).__name__, "name": type_.name}
    for name in ("choices", "min", "max", "min_open", "max_open"):
        if getattr(type_, name, None) is not None:
            value = getattr(type_, name)
            said[name] = list(map(str, value)) if name == "choices" else value
    return said
said = {}
for name in COMMANDS:
    command = group.get_command(click.Context(group), name)
    said[name] = {
        "/".join((*p.opts, *p.secondary_opts)): {
            **kind(p.type), "default": repr(p.default), "required": p.required, "nargs": p.nargs,
            "multiple": getattr(p, "multiple", False), "flag": getattr(p, "is_flag", False), "field": p.name,
        }
        for p in command.params
    }
print(json.dumps(said))
"""


def commands() -> Iterator[tuple[str, list[str]]]:
    """Name and arguments of every run, in order. What a run writes lies under its working directory."""
    yield "cache", f"cache demo demo cache {CACHE} --exact-teacher --sites resid_post".split()
    yield "cache-int8", f"cache demo demo cache-int8 {CACHE} --z-dtype int8 --worker 0/2".split()
    yield "cache-twin", f"cache demo demo cache-twin {CACHE} --seed 5 --exact-teacher".split()
    yield "info", ["info", "cache", "--json"]
    yield "info-int8", ["info", "cache-int8", "--json"]
    yield "verify", ["verify", "cache", "--json", "--deep", "256"]
    yield "plan", f"plan demo demo {CACHE} --json --probe-seconds 0.5".split()
    yield (
        "fidelity",
        [
            "fidelity",
            "cache",
            "--json",
            "--rows",
            "512",
            "--keep-bits",
            "4",
            "--top-k",
            "8",
            "--probe-heads",
            "2",
            "--probe-rows",
            "2048",
        ],
    )
    for name, options in FITS.items():
        yield f"fit-{name}", f"fit cache fit-{name} {FIT} {options}".split()
        yield f"info-fit-{name}", f"info fit-{name} --json".split()
    for name in ("linear", "low-rank", "translator", "summed", "tuned"):
        yield f"eval-{name}", f"eval fit-{name} cache --json --rows 512".split()
    yield "read", ["read", "fit-linear", *PROMPTS, "--json", "--token", " her"]
    yield "read-page", ["read", "fit-linear", PROMPTS[0], "--layer", "3", "--html", "page.html"]
    yield (
        "locate",
        [
            "locate",
            "fit-linear",
            "--terms",
            "terms.txt",
            "--prompts",
            "prompts.txt",
            "--control",
            "controls.txt",
            "--json",
        ],
    )
    yield (
        "compare",
        ["compare", "fit-linear", "--clean", "prompts.txt", "--suspect", "controls.txt", "--json"],
    )
    yield "compare-two", ["compare", "fit-linear", "--clean", PROMPTS[0], "--suspect", PROMPTS[1], "--json"]
    inject = ["inject", "fit-linear", PROMPTS[0], "--layer", "3", "--json"]
    yield "inject", [*inject, "--head", "1", "--tokens", "her", "--text", "demo", "--text-tokens", "512"]
    yield "ablate", [*inject, "--head", "1", "--ablate", "zero"]
    yield (
        "basis",
        [
            "basis",
            "fit-linear",
            "cache",
            "--layer",
            "3",
            "--heads",
            "0,1",
            "--rows",
            "256",
            "--sequences",
            "4",
            "--directions",
            "4",
            "--json",
            "--save",
            "basis.safetensors",
        ],
    )
    yield "heads", ["heads", "demo", "--sequences", "4", "--length", "32", "--json"]
    yield "transfer", ["transfer", "fit-linear", "cache", "--layers", "2,3", "--rows", "512", "--json"]
    yield "export", ["export", "fit-linear", "export"]
    yield "import", ["import", "export", "imported", "--model", "demo"]
    yield (
        "publish",
        ["publish", "fit-linear", "--repo", "me/lenses", "--store", "cache", "--out", "published", "--json"],
    )
    yield "sweep", ["sweep", "sweep.toml", "cache", "sweep", "--json"]


def write_texts(out: Path) -> None:
    """The prompts, terms and grids that the commands read."""
    (out / "text.txt").write_text("A text, and no cache.\n")
    (out / "prompts.txt").write_text(
        "\n".join(f"The {name} took the" for name in ["king", "queen", "boy", "girl", "man"])
    )
    (out / "controls.txt").write_text(
        "\n".join(f"The {name} stood by the" for name in ["wall", "tree", "door", "fire", "sea"])
    )
    (out / "terms.txt").write_text("hand\nman\nher\n")
    (out / "sweep.toml").write_text(
        'steps = 6\neval_rows = 2048\nbatch_rows = 256\nlayers = [3]\n\n[grid]\nlr = [0.03, 0.01]\nlens = ["linear", "translator"]\n'
    )


def written(out: Path) -> dict[str, Any]:
    """The files under `out`: the contents of JSON, the hash of anything else."""
    return {
        path.relative_to(out).as_posix(): contents(path)
        for path in sorted(out.rglob("*"))
        if path.is_file() and "checkpoints" not in path.parts
    }


def contents(path: Path) -> Any:
    """The contents of a JSON file; the SHA-256 of any other file."""
    data = path.read_bytes()
    try:
        if path.suffix == ".json":
            return json.loads(data)
        if path.suffix == ".jsonl":
            return [json.loads(line) for line in data.splitlines()]
    except ValueError:
        pass
    return hashlib.sha256(data).hexdigest()


def record(tree: Path, out: Path) -> dict[str, Any]:
    """Run everything with the package of `tree`, in `out`."""
    out.mkdir(parents=True)
    write_texts(out)
    environment = {
        **os.environ,
        "PYTHONPATH": str(tree.resolve() / "pipeline"),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "COLUMNS": "80",
    }

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=out,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )

    said: dict[str, Any] = {"options": json.loads(run("-c", OPTIONS).stdout)}
    for name, arguments in commands():
        print(name, file=sys.stderr)
        ran = run("-m", "alens", *arguments)
        said[name] = {"exit": ran.returncode}
        if ran.returncode:
            said[name]["error"] = ran.stderr.splitlines()[-1:]
        elif "--json" in arguments:
            said[name]["json"] = json.loads(ran.stdout)
    for name, line in EXITS.items():
        said[name] = {"exit": run("-m", "alens", *line.split()).returncode}
    said["files"] = written(out)
    return said


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """The plain values of a document, with the path of each."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    if not items or not value:
        yield path, value
    for key, item in items:
        yield from leaves(item, f"{path}/{key}")


def compare(base: Path, again: Path, new: Path) -> int:
    """Print how NEW differs from BASE; 1 where it does."""
    first, second, now = (dict(leaves(json.loads(path.read_text()))) for path in (base, again, new))

    def differing(one: dict[str, Any], other: dict[str, Any]) -> set[str]:
        return {path for path in one.keys() | other.keys() if one.get(path, one) != other.get(path, one)}

    noise = differing(first, second)
    differ = sorted(differing(first, now) - noise)
    for path in differ:
        print(path, repr(first.get(path, "absent"))[:80], "->", repr(now.get(path, "absent"))[:80])
    print(f"{len(first):,} values, {len(noise):,} of them noise, {len(differ):,} differ")
    return int(bool(differ))


def main() -> None:
    """Record or compare, as the arguments say."""
    what, *places = sys.argv[1:]
    if what == "compare":
        sys.exit(compare(*map(Path, places)))
    json.dump(record(*map(Path, places)), sys.stdout)


main()
