"""Which lines a log gets and when, by a clock that the tests set and by reports of the work."""

import pytest

from alens.cli import progress_lines as lines
from alens.cli.progress_lines import ProgressLines
from alens.job.progress import Progress


class Log:
    """Lines with the time at which they were said."""

    def __init__(self) -> None:
        self.now, self.said = 0.0, list[tuple[float, str]]()
        self.lines = ProgressLines(
            "alens fit: starting", lambda line: self.said.append((self.now, line)), self.clock
        )

    def clock(self) -> float:
        return self.now

    def at(self, now: float, stage: str, done: int = 0, total: int | None = None, unit: str = "") -> None:
        """A report at this time; the thread beside the work has looked twice a second until then."""
        self.wait(now)
        self.lines(Progress(stage=stage, done=done, total=total, unit=unit))

    def wait(self, until: float) -> None:
        while self.now < until:
            self.now = min(until, self.now + 0.5)
            self.lines.look()

    def taken(self) -> list[tuple[float, str]]:
        said, self.said[:] = list(self.said), []
        return said


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Log:
    monkeypatch.setattr(lines, "EARLY_S", 3.0)
    monkeypatch.setattr(lines, "EVERY_S", 10.0)
    return Log()


def test_what_is_quick_says_nothing(log: Log) -> None:
    log.at(1, "loading the model")
    for step in range(5):
        log.at(1 + step / 4, "fit", step, 4, "steps")
    assert log.taken() == []


def test_a_command_says_what_it_does_before_its_first_report(log: Log) -> None:
    log.wait(14)
    assert log.taken() == [(3, "alens fit: starting"), (13, "alens fit: starting, 0:13 so far")]


def test_many_quick_stages_are_not_silent_together(log: Log) -> None:
    for number in range(12):
        log.at(2 * number, f"part {number}")
    log.wait(23)
    assert log.taken() == [(3, "part 1"), (13, "part 6"), (23, "part 11")]


def test_a_stage_is_told_early_then_now_and_then(log: Log) -> None:
    log.at(1, "fit", 0, 25, "steps")
    for second in range(2, 27):
        log.at(second, "fit", second - 1, 25, "steps")
    assert log.taken() == [
        (3, "fit 1 of 25 steps (4 %), 0:23 left"),
        (13, "fit 11 of 25 steps (44 %), 0:13 left"),
        (23, "fit 21 of 25 steps (84 %), 0:03 left"),
        (26, "fit 25 of 25 steps (100 %)"),
    ]


def test_a_resumed_fit_that_is_deep_in_a_step(log: Log) -> None:
    """The time left follows from the steps of this run, and the line shows that the work goes on."""
    log.at(0, "fit", 200, 210, "steps")
    log.at(25, "fit", 201, 210, "steps")
    log.wait(55)
    assert log.taken() == [
        (3, "fit 200 of 210 steps (95 %)"),
        (13, "fit 200 of 210 steps (95 %), 0:13 at the next"),
        (23, "fit 200 of 210 steps (95 %), 0:23 at the next"),
        (33, "fit 201 of 210 steps (95 %), 3:37 left"),
        (43, "fit 201 of 210 steps (95 %), 3:27 left, 0:18 at the next"),
        (53, "fit 201 of 210 steps (95 %), 3:20 left, 0:28 at the next"),
    ]


def test_what_is_left_is_never_below_nothing(log: Log) -> None:
    log.at(0, "judge", 0, 2048, "rows")
    log.at(20, "judge", 2000, 2048, "rows")
    log.wait(34)
    assert log.taken()[-1] == (33, "judge 2,000 of 2,048 rows (97 %), 0:00 left, 0:13 at the next")


def test_what_is_left_follows_the_pace(log: Log) -> None:
    """A step takes 1 s, then 5 s: after a minute the first steps no longer count."""
    for step in range(101):
        log.at(step, "fit", step, 1000, "steps")
    log.taken()
    for step in range(1, 61):
        log.at(100 + 5 * step, "fit", 100 + step, 1000, "steps")
    assert log.taken()[-1] == (393, "fit 158 of 1,000 steps (15 %), 1:10:07 left")


def test_an_evaluation_on_the_way_does_not_begin_the_fit_anew(log: Log) -> None:
    for step in range(6):
        log.at(4 * step, "fit", step, 10, "steps")
    log.at(20, "evaluate", 0, 4096, "rows")
    log.at(28, "evaluate", 2048, 4096, "rows")
    log.at(36, "evaluate", 4096, 4096, "rows")
    for step in range(6, 11):
        log.at(16 + 4 * step, "fit", step, 10, "steps")
    log.at(56, "writing lenses", 0, 3, "layers")
    log.wait(70)
    assert log.taken() == [
        (3, "fit 0 of 10 steps (0 %)"),
        (13, "fit 3 of 10 steps (30 %), 0:27 left"),
        (23, "evaluate 0 of 4,096 rows (0 %)"),
        (33, "evaluate 2,048 of 4,096 rows (50 %), 0:03 left"),
        (36, "evaluate 4,096 of 4,096 rows (100 %)"),
        (46, "fit 7 of 10 steps (70 %), 0:17 left"),
        (56, "fit 9 of 10 steps (90 %), 0:02 left"),
        (56, "fit 10 of 10 steps (100 %)"),
        (59, "writing lenses 0 of 3 layers (0 %)"),
        (69, "writing lenses 0 of 3 layers (0 %), 0:13 at the next"),
    ]


def test_a_total_that_is_not_known_and_work_that_nobody_announced(log: Log) -> None:
    log.at(0, "tokenise", 0, None, "tokens")
    log.at(12, "tokenise", 10_000, None, "tokens")
    log.at(13, "tokenise", 20_000, 20_000, "tokens")
    log.wait(24)
    assert log.taken() == [
        (3, "tokenise 0 tokens, 0:03 so far"),
        (13, "tokenise 10,000 tokens, 0:13 so far"),
        (13, "tokenise 20,000 of 20,000 tokens (100 %)"),
        (23, "still at work, 0:10 after: tokenise"),
    ]
