"""Fuzzes for as long as you like: `.venv/bin/python -m tests.fuzz.by_hand --rounds 200 --seed 3 [--kind plan]`.

A round is one trial of each kind of document. Prints every distinct finding with the change and the command that
show it, and how many there are. Exits with 1 when there are any.
"""

import argparse
import collections
import contextlib
import io
import sys
import tempfile
from pathlib import Path

from . import specimens, trials


def main() -> None:
    """Read the arguments, fuzz, and print what was seen."""
    names = [kind.name for kind in specimens.KINDS]
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", action="append", choices=names, help="only these kinds of document")
    parser.add_argument(
        "--first", action="store_true", help="only the first command of each kind: many times as fast"
    )
    parser.add_argument(
        "--specimens", type=Path, help="where they are, or are to be made: a second run begins sooner"
    )
    given = parser.parse_args()
    kinds = [kind for kind in specimens.KINDS if kind.name in (given.kind or names)]
    with tempfile.TemporaryDirectory(prefix="alens-fuzz-") as folder:
        whole, work = given.specimens or Path(folder) / "whole", Path(folder) / "work"
        work.mkdir()
        if not whole.is_dir():
            whole.mkdir()
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                specimens.make(whole)
        findings = trials.fuzz(
            trials.Bench(whole, work), kinds, given.rounds, given.seed, first_only=given.first
        )
    print(trials.shown(findings))
    distinct = {(finding.what, finding.where) for finding in findings}
    of_kinds = {(finding.kind, finding.where) for finding in findings if finding.what == "traceback"}
    print(f"{given.rounds * len(kinds)} trials, {len(findings)} findings, {len(distinct)} distinct:")
    print("   ", dict(collections.Counter(what for what, _ in distinct)))
    print("    tracebacks by document:", dict(collections.Counter(kind for kind, _ in of_kinds)))
    sys.exit(bool(findings))


if __name__ == "__main__":
    main()
