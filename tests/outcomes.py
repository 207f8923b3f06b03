"""What a run of `alens` leaves, and the one line of a run that was refused or failed."""

from typing import NamedTuple


class Outcome(NamedTuple):
    """The exit code of a run of `alens`, and what it printed."""

    code: int
    stdout: str
    stderr: str


def refusal(outcome: Outcome, code: int = 2, *, after_log: bool = False) -> str:
    """The error of a run that ended with `code`, without `alens: `.

    It is the only line on standard error, or with `after_log` the last one behind lines of the log; nothing else was
    printed.
    """
    assert outcome.code == code, outcome
    assert outcome.stdout == "" and "Traceback" not in outcome.stderr, outcome
    lines = outcome.stderr.splitlines()
    assert after_log or len(lines) == 1, outcome
    assert [line for line in lines if line.startswith("alens: ")] == lines[-1:], outcome
    return lines[-1].removeprefix("alens: ")


def assert_one_line(outcome: Outcome, code: int, *says: str) -> None:
    """A run that ended with `code` and one line, which has all of `says` in it."""
    line = refusal(outcome, code)
    for part in says:
        assert part in line
