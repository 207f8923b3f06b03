"""What `alens info` says of a lens directory.

In: a directory or a repository of the hub. Out: what is shown, by name; for each head its figures on held-out rows.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from alens.lens.record import EFFECT, JACOBIAN
from alens.pictures.numbers import fixed, interval, percent, significant

if TYPE_CHECKING:
    from alens.lens.record import LensRecord


def bos_said(token: int | None) -> str:
    """Whether sequences and prompts begin with BOS."""
    return "none" if token is None else f"token {token}, before each text"


def _known(value: Any) -> Any:
    return "unknown" if value is None else value


def _nats(value: float | None) -> str:
    return "unknown" if value is None else fixed(value, 4)


def lenses_body(path: Path) -> dict[str, Any]:
    """What PATH holds. Only `lens.json` is read."""
    from alens.lens.recorded_lenses import RecordedLenses

    lenses = RecordedLenses(path)
    record = lenses.record
    return {
        "lenses": lenses.name,
        **({} if lenses.commit is None else {"commit": lenses.commit}),
        "design": record.design,
        "form": record.form,
        "site": record.site,
        "objective": record.objective or "unknown",
        "model": f"{record.model.id}: {record.model.architecture}, weights {record.model.weights_sha256[:12]}",
        "cache_plan": record.cache.get("plan") or "unknown",
        "bos": bos_said(record.bos),
        "layers": ",".join(map(str, record.layers)),
        "heads": str(record.lenses)
        if record.lenses.shared is None
        else ",".join(map(str, record.lenses.shared)),
        "steps": _known(record.fit.get("steps")),
        "rows_seen": _known(record.fit.get("rows_seen")),
        "bytes": sum(file["bytes"] for file in record.files.values()),
        "mean_output_kl": _known(record.mean_output_kl),
        "held_out": [
            {
                "head": f"{layer}.{head}",
                "kl": f"KL {fixed(figures['kl'], 4)}",
                "mean_output": f"mean output {_nats(record.mean_output_kl)}",
                "cross_entropy": f"CE {fixed(figures['cross_entropy'], 4)}",
                "top1": f"top-1 {fixed(figures['top1_agreement'], 4)}",
                **({"says_nothing": True} if figures.get("says_nothing") else {}),
            }
            for layer, heads in record.held_out.items()
            for head, figures in zip(record.lenses.by_layer[int(layer)], heads, strict=True)
        ],
        **({"effects": _explained(record)} if record.design == EFFECT else {}),
        **({"jacobians": _certain(record)} if record.design == JACOBIAN else {}),
    }


def _explained(record: "LensRecord") -> list[dict[str, str]]:
    """How much of the effect of each head its effect lens explains on held-out documents, beside what it writes."""

    def share(of_reading: dict[str, Any]) -> str:
        ends = of_reading["interval"]
        return fixed(of_reading["share"]) + (f" ({interval(tuple(ends))})" if ends else "")

    return [
        {
            "head": f"{layer}.{head}",
            "explained": f"explained {share(figures['explained'])}",
            "written": f"by what it writes {share(figures['written'])}",
            "logits": f"effect {significant(figures['logits'])} logits",
        }
        for layer, heads in record.fit["effects"].items()
        for head, figures in zip(record.lenses.by_layer[int(layer)], heads, strict=True)
    ]


def _certain(record: "LensRecord") -> list[dict[str, str]]:
    """How certain the Jacobian of each head is, and how near the direct write."""
    return [
        {
            "head": f"{layer}.{head}",
            "standard_error": "standard error unknown"
            if figures["standard_error"] is None
            else f"standard error {percent(figures['standard_error'])}",
            "cosine": f"cosine with W_O {fixed(figures['cosine_with_write'])}",
        }
        for layer, heads in record.fit["jacobians"].items()
        for head, figures in zip(record.lenses.by_layer[int(layer)], heads, strict=True)
    ]
