"""One command on a pretended GPU: `.venv/bin/python -m tests.pretend.by_hand read LENSES "He was" --device cuda`.

Prints what the command prints, then on standard error every wait: how often, where in alens, and for what. With
`PRETENDED_GPUS=2` there are two.
"""

import os
import sys

from alens import cli

from . import cuda
from .waits import WAITS


def main() -> None:
    """Run the command."""
    cuda.pretend(int(os.environ.get("PRETENDED_GPUS", "1")))
    code = cli.run(sys.argv[1:])
    for (place, what), count in WAITS.counts.most_common():
        print(f"{count:7,} {place}: {what}", file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
