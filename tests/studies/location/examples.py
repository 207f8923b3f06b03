"""Prompts about men and women, and one head of a `Location`."""

from collections.abc import Sequence

from alens.reading.prompts import Prompt
from alens.studies.location.result import HeadEffect, Location

MEN = ["The old man opened the door, and", "John took his hat, and", "The king said that", "My father was"]
WOMEN = [
    "The old lady opened the door, and",
    "Mary took her hat, and",
    "The queen said that",
    "My mother was",
]
WORDS = ["he", "his", "man"]


def prompts(texts: Sequence[str], label: str | None = None) -> list[Prompt]:
    return [Prompt(text=text, label=label, source=f"p.txt:{n}") for n, text in enumerate(texts, start=1)]


def one(location: Location, layer: int, head: int) -> HeadEffect:
    (only,) = [each for each in location.heads if (each.layer, each.head) == (layer, head)]
    return only
