"""`alens info`: what a cache or a lens directory holds."""

from pathlib import Path
from typing import Any

import click

from alens.cli.parameters import json_option, print_json
from alens.errors import RequestError


@click.command("info", epilog="Example: alens info gpt2-cache")
@click.argument("path", type=click.Path(path_type=Path))
@json_option
def command(path: Path, as_json: bool) -> None:
    """Show what the cache or the lens directory PATH holds."""
    if (path / "plan.json").exists():
        body = _cache(path)
    elif (path / "lens.json").exists():
        body = _lenses(path)
    elif (path / "fit.json").exists():
        raise RequestError(f"{path} is a fit that has not finished: run the same `alens fit` again to go on")
    else:
        raise RequestError(f"{path} is neither a cache (no plan.json) nor lenses (no lens.json)")
    if as_json:
        print_json(body)
        return
    for name, value in body.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            click.echo(f"{name}:")
            for entry in value:
                click.echo("  " + "  ".join(str(part) for part in entry.values()))
        else:
            click.echo(f"{name}: {value}")


def _cache(path: Path) -> dict[str, Any]:
    from alens.store.arrays import shard_arrays, weight_arrays
    from alens.store.reader import open_cache

    cache = open_cache(path)
    plan, model = cache.plan, cache.plan.model
    specs = [*shard_arrays(plan).values(), *weight_arrays(plan).values()]
    missing = sorted(set(range(plan.num_shards)) - set(cache.shards))
    records = [cache.record(shard) for shard in cache.shards]
    software = sorted(
        {
            ", ".join(f"{name} {r[name]}" for name in ("torch", "transformer-lens", "zarr") if name in r)
            for r in records
        }
    )
    return {
        "cache": str(path),
        "state": "sealed" if cache.sealed else f"{len(cache.shards)} of {plan.num_shards} shards committed",
        "missing_shards": ",".join(map(str, missing)) or "none",
        "plan": plan.identity,
        "fingerprint": cache.fingerprint or "none yet",
        "model": f"{model.id}{f' at {model.revision}' if model.revision else ''}: {model.architecture}, {model.n_layers} layers, "
        f"{model.n_heads} heads of {model.d_head}, d_model {model.d_model}, vocabulary {model.d_vocab:,}",
        "corpus": f"{plan.corpus.id}{f' at {plan.corpus.revision}' if plan.corpus.revision else ''}: split {plan.corpus.split}, {len(plan.corpus.files)} files",
        "rows": len(cache.shards) * plan.settings.rows_per_shard,
        "rows_planned": plan.rows,
        "layers": ",".join(map(str, plan.layers)),
        "targets": f"top {plan.settings.top_k} and {plan.settings.tail_samples} tail samples"
        + (", exact teacher" if plan.settings.exact_teacher else ""),
        "bytes_per_row": sum(spec.row_bytes for spec in specs if spec.dimensions[0] == "row"),
        "bytes": sum(file["bytes"] for record in records for file in record["files"].values()),
        "software": "; ".join(software)
        + (" (a mixture: shards may differ in the last bits)" if len(software) > 1 else ""),
        "arrays": [
            {
                "name": spec.name,
                "shape": "x".join(map(str, spec.shape)),
                "dtype": spec.dtype,
                "meaning": spec.meaning,
            }
            for spec in specs
        ],
    }


def _lenses(path: Path) -> dict[str, Any]:
    from alens.lens.saved import load_lenses

    record = load_lenses(path).record
    return {
        "lenses": str(path),
        "design": record.design,
        "objective": record.objective,
        "model": f"{record.model.id}: {record.model.architecture}, weights {record.model.weights_sha256[:12]}",
        "cache_plan": record.cache["plan"],
        "layers": ",".join(map(str, record.layers)),
        "heads": ",".join(map(str, record.heads)),
        "steps": record.fit["steps"],
        "rows_seen": record.fit["rows_seen"],
        "bytes": sum(file["bytes"] for file in record.files.values()),
        "held_out": [
            {
                "head": f"{layer}.{head}",
                "kl": f"KL {figures['kl']:.4f}",
                "cross_entropy": f"CE {figures['cross_entropy']:.4f}",
                "top1": f"top-1 {figures['top1_agreement']:.4f}",
            }
            for layer, heads in record.held_out.items()
            for head, figures in zip(record.heads, heads, strict=True)
        ],
    }
