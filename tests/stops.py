"""Asks a fit to stop: after some steps of this run, or in the middle of the step or evaluation that follows."""

from alens.job.progress import Progress


class Stop:
    """`fit_lenses(..., report=stop.report, should_stop=stop)`: after `steps` steps of this run it says yes,
    from the `pieces + 1`-th question on. A fit asks between steps, and before each piece of a step or an evaluation."""

    def __init__(self, steps: int, pieces: int = 0) -> None:
        self.left, self.pieces, self.asked = steps, pieces, 0
        self._done: int | None = None

    def report(self, progress: Progress) -> None:
        """Counts steps: a run reports once when it begins, and then after each step."""
        if progress.unit == "steps":
            self.left -= self._done is not None and progress.done > self._done
            self._done = progress.done

    def __call__(self) -> bool:
        if self.left > 0:
            return False
        self.asked += 1
        return self.asked > self.pieces
