"""`last-position`: the published code's variant of forward KL, on one position of each sequence.

The published training step (github.com/msakarvadia/AttentionLens) keeps the last position of each text only. A
cache holds packed sequences, so here it is the last position of each sequence: 1 row in seq_len.
"""

from alens.fit.objectives.forward_kl import ForwardKL


class LastPosition(ForwardKL):
    """Forward KL on the last position of each sequence."""

    last_position = True
