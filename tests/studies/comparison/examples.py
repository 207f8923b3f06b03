"""Words that the prompts of these tests are made of, and settings that take little time."""

import json
from pathlib import Path

from alens.studies.comparison.prompt_sets import PromptSet, prompt_set
from alens.studies.comparison.settings import CompareSettings

ADJECTIVES = ("old", "black")
PARTS = [(who, what) for who in ("man", "woman", "dog", "boy") for what in ("house", "river", "door")]
QUICK = CompareSettings(resamples=99)


def labelled(path: Path, prompts: list[tuple[str, object]]) -> PromptSet:
    """A file of prompts with labels, read."""
    path.write_text("".join(json.dumps({"prompt": text, "label": label}) + "\n" for text, label in prompts))
    return prompt_set(str(path))
