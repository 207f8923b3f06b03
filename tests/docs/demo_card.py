"""Writes the table of docs/demo.md anew from the bundled model: `python tests/docs/demo_card.py`."""

import json
import re
from pathlib import Path

import pyarrow.parquet as pq

from alens import demo

PAGE = Path(__file__).parents[2] / "docs" / "demo.md"
BLOCK = re.compile(r"(<!-- written from [^\n]*-->\n).*?(<!-- end -->)", re.DOTALL)


def table() -> str:
    """What config, card and text say, as Markdown."""
    config = json.loads((demo.MODEL / "config.json").read_text())
    text = pq.read_table(demo.CORPUS)
    rows = {
        "layers": config["n_layer"],
        "heads in each layer": config["n_head"],
        "d_model": config["n_embd"],
        "vocabulary": config["vocab_size"],
        "context, tokens": config["n_positions"],
        **{name.replace("_", " "): value for name, value in json.loads(demo.CARD.read_text()).items()},
        "model directory, MB": round(sum(f.stat().st_size for f in demo.MODEL.iterdir()) / 1e6, 1),
        "text: documents": len(text["document"].unique()),
        "text: sentences": text.num_rows,
        "text: MB": round(demo.CORPUS.stat().st_size / 1e6, 2),
    }
    lines = [
        f"| {name} | {value:,} |" if type(value) is int else f"| {name} | {value} |"
        for name, value in rows.items()
    ]
    return "\n".join(["| | |", "| --- | --- |", *lines]) + "\n"


def with_table(page: str) -> str:
    """The page with today's table in its place."""
    return BLOCK.sub(lambda match: match[1] + table() + match[2], page)


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text()))
