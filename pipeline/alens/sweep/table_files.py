"""The files of a sweep's table: `table.json`, `table.csv`, `heads.csv` and `table.md`, each whole.

In: a `SweepTable`. Out: the files, in the sweep's directory: a row for each variant, in `heads.csv` for each head of
each variant. The numbers of JSON and CSV are not rounded.
"""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from alens.exchange import markdown
from alens.store import durable, leftovers
from alens.store.durable import write_errors
from alens.sweep.table import SweepTable, cells, notes, setting_text


def put(out: Path, table: SweepTable) -> None:
    """Writes the four files, each whole."""
    files = {
        "table.json": json.dumps(table.to_json(), indent=1) + "\n",
        "table.csv": _csv(_variant_lines(table)),
        "heads.csv": _csv(table.records()),
        "table.md": _markdown(table),
    }
    with write_errors(out):
        for name, text in files.items():
            leftovers.clear(out / name)
            durable.put(out / name, text.encode())


def _variant_lines(table: SweepTable) -> list[dict[str, Any]]:
    lines = []
    for row in table.rows:
        worst = row.worst
        low, high = row.interval or (None, None)
        lower, higher = row.difference_interval or (None, None)
        lines.append(
            {
                "variant": row.name,
                **{name: setting_text(value) for name, value in row.settings.items()},
                "kl": row.kl,
                "kl_low": low,
                "kl_high": high,
                "mean_output_kl": row.mean_output_kl,
                "difference": row.difference,
                "difference_low": lower,
                "difference_high": higher,
                "worst_head": f"{worst.layer}.{worst.head}" if worst else None,
                "worst_kl": worst.kl if worst else None,
                **{
                    name: getattr(row, name)
                    for name in ("rows_seen", "steps", "seconds", "converged", "failed")
                },
            }
        )
    return lines


def _csv(lines: Sequence[dict[str, Any]]) -> str:
    text = io.StringIO()
    if lines:
        writer = csv.DictWriter(text, list(lines[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)
    return text.getvalue()


def _markdown(table: SweepTable) -> str:
    headings, rows = cells(table, settings=True)
    lines = [headings, ["---"] * len(headings), *rows]
    grid = "\n".join("| " + " | ".join(markdown.sentence(cell) for cell in line) + " |" for line in lines)
    return "\n\n".join([grid, *map(markdown.sentence, notes(table))]) + "\n"
