"""Imports alens, writes one cache, then forks `alens` for each line on stdin; run by the fixture `warm_parent`.

In: the arguments of the first cache; then JSON lines, {"start": arguments, "stderr": file} or {"wait": pid}. Out: "warm",
then a line for each: the process id, or the exit code. What is forked is the whole command, in a process of its own that
can be killed; only its imports are done before.
"""

import json
import os
import signal
import sys
from pathlib import Path

import torch

from alens import cli


def forked(arguments: list[str], stderr: Path) -> int:
    if pid := os.fork():
        return pid
    for number, target in ((0, os.devnull), (1, os.devnull), (2, str(stderr))):
        os.dup2(os.open(target, os.O_RDWR | os.O_CREAT | os.O_APPEND), number)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    torch.set_num_threads(1)  # torch renews its pool in the first thread that asks; two at once would fail
    code = 130
    try:  # as cli.main ends
        code = cli.run(arguments)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    except KeyboardInterrupt:
        pass
    finally:
        sys.stderr.flush()
        os._exit(code)


def main() -> None:
    torch.set_num_threads(1)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    assert cli.run(sys.argv[1:]) == 0
    print("warm", file=answers, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        if "start" in request:
            print(forked(request["start"], Path(request["stderr"])), file=answers, flush=True)
        else:
            _, status = os.waitpid(request["wait"], 0)
            print(os.waitstatus_to_exitcode(status), file=answers, flush=True)


if __name__ == "__main__":
    main()
