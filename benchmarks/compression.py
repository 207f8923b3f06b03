"""What lenses reach, and what compressed targets cost: the same lens fitted to both teachers.

Caches CORPUS with the exact teacher, fits every head to the compressed targets and one layer to the exact
ones with the same settings, and judges all of them by exact held-out KL. Prints one JSON document.

    python benchmarks/compression.py [--model demo] [--corpus demo] [--rows 65536] [--layer 3] [--fit '--epochs 2']
"""

import argparse
import json
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any


def alens(*arguments: str) -> str:
    """Run a command; its standard output. Stops the benchmark when it fails."""
    done = subprocess.run(
        [sys.executable, "-m", "alens", *arguments], stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"alens {' '.join(arguments)} ended with {done.returncode}")
    return done.stdout


def of_reading(judged: dict[str, Any], which: str, layer: int | None = None) -> list[float]:
    """The KL of each head of one reading, of all layers or one."""
    return [
        one["kl"]
        for one in judged["readings"]
        if one["reading"] == which and one["head"] is not None and layer in (None, one["layer"])
    ]


def summary(kls: list[float]) -> dict[str, float]:
    """Mean and worst head."""
    return {"mean_kl": round(sum(kls) / len(kls), 4), "worst_kl": round(max(kls), 4)}


def main() -> None:
    """Cache, fit twice, judge."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="demo")
    parser.add_argument("--corpus", default="demo")
    parser.add_argument("--rows", default="65536")
    parser.add_argument("--rows-per-shard", default="8192")
    parser.add_argument("--layer", default="3")
    parser.add_argument("--fit", default="", help="further options for both fits")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store, ours, exact = (str(Path(folder) / name) for name in ("cache", "compressed", "exact"))
        sizes = ["--max-rows", asked.rows, "--rows-per-shard", asked.rows_per_shard]
        started = time.monotonic()
        print(alens("cache", asked.model, asked.corpus, store, "--exact-teacher", *sizes))
        print(alens("fit", store, ours, *shlex.split(asked.fit)))
        print(
            alens("fit", store, exact, "--layers", asked.layer, "--teacher", "exact", *shlex.split(asked.fit))
        )
        judged = json.loads(alens("eval", ours, store, "--json"))
        judged_exact = json.loads(alens("eval", exact, store, "--json"))
    layer = summary(of_reading(judged, "lens", int(asked.layer)))
    layer_exact = summary(of_reading(judged_exact, "lens"))
    body = {
        "held_out_rows": judged["rows"],
        "heads": len(of_reading(judged, "lens")),
        "lens": summary(of_reading(judged, "lens")),
        "unembedding": summary(of_reading(judged, "unembedding")),
        "mean_output_kl": round(judged["readings"][0]["kl"], 4),
        f"layer_{asked.layer}_compressed": layer,
        f"layer_{asked.layer}_exact": layer_exact,
        "compressed_over_exact": round(layer["mean_kl"] / layer_exact["mean_kl"], 4),
        "seconds": round(time.monotonic() - started),
    }
    print(json.dumps(body, indent=1))


if __name__ == "__main__":
    main()
