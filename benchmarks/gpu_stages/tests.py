"""Tests of tests/gpu in this process: each outcome is said as it comes, with the figures that the test recorded.

python -m gpu_stages.tests PATH ... [OPTION OF PYTEST ...]
"""

import sys

import pytest

from gpu_stages.say import end_with_run, say


class Teller:
    """Says how each test went."""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when != "call" and report.passed:
            return
        name = report.nodeid.removeprefix("tests/gpu/")
        outcome: dict[str, object] = {"outcome": report.outcome, "seconds": round(report.duration, 2)}
        outcome.update(report.user_properties)
        if report.skipped and isinstance(report.longrepr, tuple):
            outcome["why"] = report.longrepr[2].removeprefix("Skipped: ")
        elif report.failed:
            outcome["why"] = report.longreprtext[-1500:]
        say(name, outcome)


def main() -> int:
    """The exit code of pytest."""
    end_with_run()
    arguments = ["-q", "-m", "gpu", "-p", "no:cacheprovider", "-p", "no:xdist", *sys.argv[1:]]
    return int(pytest.main(arguments, plugins=[Teller()]))


if __name__ == "__main__":
    sys.exit(main())
