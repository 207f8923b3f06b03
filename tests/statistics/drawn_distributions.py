"""Distributions over a small vocabulary, drawn with a seed."""

import torch


def distributions(number: int, vocabulary: int = 50, seed: int = 0) -> torch.Tensor:
    """(number, vocabulary) float64; each row adds up to 1."""
    random = torch.Generator().manual_seed(seed)
    return torch.randn(number, vocabulary, generator=random, dtype=torch.float64).softmax(-1)
