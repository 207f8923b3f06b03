"""The stand-ins themselves: what they record is what was called."""

import subprocess
from typing import Any


def test_calls_at_the_same_time_are_recorded_apart(stand_ins: Any) -> None:
    program = stand_ins.add("alens")
    asked = [["fit", f"store {number}", "line\n'two'", ""] for number in range(200)]
    running = [subprocess.Popen([program, *arguments], stdin=subprocess.DEVNULL) for arguments in asked]
    assert [process.wait(400) for process in running] == [0] * len(asked)
    assert sorted(stand_ins.calls("alens")) == sorted(asked)
