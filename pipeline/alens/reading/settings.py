"""What the lists of a reading can be asked for. It loads no torch, so that the options of `alens read` are made from it."""

from typing import Literal

Rank = Literal["lift", "probability"]
"""What comes first in a list."""

MIN_PROBABILITY = 0.001
"""Lists by lift have tokens of this probability or more, unless told otherwise."""
