"""A set of prompts on the command line: a text, or a file of prompts.

In: a text or a name. Out: a `PromptSet` of distinct prompts; their tokens, and the positions to read.
A name that ends in .txt, .jsonl or .json is a file, and so is the name of a file that exists; the path of a directory is
refused; anything else is a prompt.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from alens.errors import RequestError
from alens.reading import prompts
from alens.reading.given import prompts_of
from alens.reading.lensed_model import LensedModel
from alens.reading.prompts import SUFFIXES, Prompt, read_prompts
from alens.reading.settings import Role
from alens.studies.prompt_values import places_to_read

SUSPECT_LABELS = {"suspect": True, "1": True, "clean": False, "0": False}
"""What a file may call its prompts; `true` and `false` become 1 and 0."""

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
        """The text of each prompt."""
        return [prompt.text for prompt in self.prompts]


def prompt_set(given: str, *, role: Role | None = None) -> PromptSet:
    """The prompts of a file, or one prompt; with `role`, plain ones as messages of that role.

    Raises `RequestError` for a file that cannot be read or holds no prompt, or a text with two labels.
    """
    is_file = _names_file(given)
    shown = given if len(given) <= SHOWN else f"{given[:SHOWN]}..."
    alone = Prompt(text=given, label=None, source=f"the prompt {shown!r}")
    all_prompts = prompts.in_role(read_prompts(Path(given)) if is_file else [alone], role)
    distinct = prompts.distinct(all_prompts)
    first = {prompt.text: prompt for prompt in distinct}
    for prompt in all_prompts:
        if first[prompt.text].label != prompt.label:
            raise RequestError(
                f"{prompt.source} has another label than {first[prompt.text].source}, with the same text"
            )
    return PromptSet(name=given, prompts=distinct, is_file=is_file, repeated=len(all_prompts) - len(distinct))


def set_of(given: PromptSet | str | Sequence[Prompt | str], name: str) -> PromptSet:
    """A set as it is, by `prompt_set`, or of a list of prompts or texts. Raises `RequestError` for anything else."""
    if isinstance(given, PromptSet):
        return given
    if isinstance(given, str):
        return prompt_set(given)
    listed: list[Prompt] = prompts_of(given, name)
    if not listed:
        raise RequestError(f"{name} is empty: give one prompt or more")
    once = prompts.distinct(listed)
    return PromptSet(name=name, prompts=once, is_file=len(listed) > 1, repeated=len(listed) - len(once))


def labels_of(given: PromptSet) -> list[bool]:
    """Which prompts are suspect.

    Raises `RequestError` for a label that does not say it, or where all prompts are of one kind.
    """
    labels = []
    for prompt in given.prompts:
        if prompt.label not in SUSPECT_LABELS:
            raise RequestError(
                f"{prompt.source} has the label {prompt.label!r}: give `clean` or `suspect` (or 0 or 1) to every prompt"
            )
        labels.append(SUSPECT_LABELS[prompt.label])
    if len(set(labels)) == 1:
        kind = "suspect" if labels[0] else "clean"
        raise RequestError(f"{given.name} has {kind} prompts alone: a detector is judged on both")
    return labels


def prompt_tokens(
    reader: LensedModel, given: Sequence[Prompt], position: str | int
) -> tuple[list[list[int]], list[list[int]]]:
    """The tokens of each prompt, and the positions to read. Raises `RequestError` that names the prompt."""
    ids, rows = [], []
    for prompt in given:
        ids.append(prompts.tokens_of(reader, prompt))
        rows.append(places_to_read(reader, len(ids[-1]), position, prompt.source))
    return ids, rows


def _names_file(given: str) -> bool:
    try:
        return given.endswith(SUFFIXES) or Path(given).is_file() or ("/" in given and Path(given).is_dir())
    except (OSError, ValueError):  # too long for a name, or not a name at all
        return False
