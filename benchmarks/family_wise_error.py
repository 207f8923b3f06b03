"""How often do `alens locate` and `alens compare` name a head where none differs, and how often do they find one?

Nothing is read from a model: scores and readings are drawn (`false_alarms/`). Prints two tables of Markdown for each
command, false alarms and power. docs/decisions/0034 has a run.

    python benchmarks/family_wise_error.py [--only locate,compare] [--draws N] [--heads N] [--permutations N]
"""

import argparse
from collections.abc import Iterator

import torch
from false_alarms import compare, locate

STUDIES = {"locate": (locate, 24, 1000, 499), "compare": (compare, 12, 400, 199)}
"""Module, and default numbers of heads, draws and permutations."""


def show(title: str, headings: list[str], rows: Iterator[list[str]]) -> None:
    """Print a table, each row as soon as it is there."""
    print(f"\n{title}\n\n| {' | '.join(headings)} |\n|{' --- |' * len(headings)}")
    for row in rows:
        print(f"| {' | '.join(row)} |", flush=True)


def main() -> None:
    """All tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default=",".join(STUDIES))
    for name in ("draws", "heads", "permutations"):
        parser.add_argument(f"--{name}", type=int)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    for name in asked.only.split(","):
        study, heads, draws, permutations = STUDIES[name]
        sizes = (asked.heads or heads, asked.draws or draws, asked.permutations or permutations)
        for title, headings, rows in study.tables(*sizes):
            show(title, headings, rows)


if __name__ == "__main__":
    main()
