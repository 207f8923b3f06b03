"""A set of prompts on the command line: a text, or a file of prompts.

In: what was given. Out: a `PromptSet`: distinct prompts with their tokens and the positions to read.
A name that ends in .txt or .jsonl is a file, and so is a name of a file that exists; a path of a directory is
refused as one; anything else is a prompt.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from alens.errors import RequestError
from alens.reading import prompts
from alens.reading.lensed import LensedModel
from alens.reading.prompts import SUFFIXES, Prompt, read_prompts
from alens.studies.comparison.prompt_readings import rows_of

SUSPECT_LABELS = {"suspect": True, "1": True, "clean": False, "0": False}
"""What a file may call them; `true` and `false` become 1 and 0."""


SHOWN = 60
"""Characters of a prompt that a message repeats."""


@dataclass(frozen=True, kw_only=True)
class PromptSet:
    """Prompts, each text once."""

    name: str
    """The file, or the prompt."""
    prompts: list[Prompt]
    is_file: bool
    repeated: int
    """Lines left out because the same text stood there before."""

    @property
    def texts(self) -> list[str]:
        return [prompt.text for prompt in self.prompts]


def prompt_set(given: str) -> PromptSet:
    """Read what was given. Raises `RequestError` for a file that cannot be read or holds no prompt, or a prompt with two labels."""
    is_file = _names_file(given)
    shown = given if len(given) <= SHOWN else f"{given[:SHOWN]}..."
    alone = Prompt(text=given, label=None, source=f"the prompt {shown!r}")
    found = read_prompts(Path(given)) if is_file else [alone]
    distinct = prompts.distinct(found)
    first = {prompt.text: prompt for prompt in distinct}
    for prompt in found:
        if first[prompt.text].label != prompt.label:
            raise RequestError(
                f"{prompt.source} has another label than {first[prompt.text].source}, with the same text"
            )
    return PromptSet(name=given, prompts=distinct, is_file=is_file, repeated=len(found) - len(distinct))


def labels_of(given: PromptSet) -> list[bool]:
    """Which prompts are suspect. Raises `RequestError` for labels that do not say it, or only one kind."""
    found = []
    for prompt in given.prompts:
        if prompt.label not in SUSPECT_LABELS:
            raise RequestError(
                f"{prompt.source} has the label {prompt.label!r}: give `clean` or `suspect` (or 0 or 1) to every prompt"
            )
        found.append(SUSPECT_LABELS[prompt.label])
    if len(set(found)) == 1:
        kind = "suspect" if found[0] else "clean"
        raise RequestError(f"{given.name} has {kind} prompts alone: a detector is judged on both")
    return found


def tokens_of(
    reader: LensedModel, given: Sequence[Prompt], position: str | int
) -> tuple[list[list[int]], list[list[int]]]:
    """Tokens, and positions to read, of each prompt. Raises `RequestError` that names the prompt."""
    ids, rows = [], []
    for prompt in given:
        ids.append(prompts.tokens_of(reader, prompt))
        rows.append(rows_of(reader, len(ids[-1]), position, prompt.source))
    return ids, rows


def _names_file(given: str) -> bool:
    try:
        return given.endswith(SUFFIXES) or Path(given).is_file() or ("/" in given and Path(given).is_dir())
    except (OSError, ValueError):  # too long for a name, or no name at all
        return False
