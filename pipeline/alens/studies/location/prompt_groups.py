"""Prompts and controls as independent samples: a text that stands in a file twice says no more than once.

In: prompts and controls as they were given. Out: each text once (of pairs: each pair once), and notes on what was left
out. A test that counted repeats would find a small p in copied lines.
"""

from collections.abc import Sequence

from alens.errors import RequestError
from alens.reading.prompts import Prompt, distinct
from alens.statistics import permutation
from alens.studies.location.settings import LocateSettings


def groups(
    prompts: Sequence[Prompt], controls: Sequence[Prompt] | None, settings: LocateSettings
) -> tuple[list[Prompt], list[Prompt] | None, list[str]]:
    """Prompts, controls and notes.

    Raises `RequestError` for too few of either once repeats are left out, for pairs that do not match, and for controls
    that are the prompts again.
    """
    _check_sizes(len(prompts), None if controls is None else len(controls), settings)
    if controls is None:
        chosen, notes = _once(prompts, "prompts")
        chosen_controls = None
    elif settings.paired:
        chosen, chosen_controls, notes = _pairs(prompts, controls)
    else:
        chosen, notes = _once(prompts, "prompts")
        chosen_controls, more = _once(controls, "controls")
        both = len({prompt.text for prompt in chosen} & {control.text for control in chosen_controls})
        _check_differ(both, len(chosen), len(chosen_controls))
        notes += more
        notes += [f"prompts that are controls too, which draws the effect to 0: {both}"] if both else []
    try:
        _check_sizes(len(chosen), None if chosen_controls is None else len(chosen_controls), settings)
    except RequestError as error:
        raise RequestError("; ".join([str(error), *notes])) from None
    return chosen, chosen_controls, notes


def _check_sizes(num_prompts: int, num_controls: int | None, settings: LocateSettings) -> None:
    """Raises `RequestError` when there are too few prompts to test, or pairs that do not match."""
    fewest = permutation.FEWEST
    if num_prompts < fewest:
        raise RequestError(
            f"{num_prompts} prompt is too few to tell a head from chance: give {fewest} or more"
        )
    if num_controls is None:
        if settings.paired:
            raise RequestError("pairs need controls: give as many control prompts as prompts")
    elif settings.paired and num_controls != num_prompts:
        raise RequestError(
            f"{num_prompts} prompts and {num_controls} controls are not pairs: give as many of each, in the same order"
        )
    elif num_controls < fewest:
        raise RequestError(
            f"{num_controls} control prompt is too few to tell a head from chance: give {fewest} or more"
        )


def _pairs(
    prompts: Sequence[Prompt], controls: Sequence[Prompt]
) -> tuple[list[Prompt], list[Prompt], list[str]]:
    """Each pair once."""
    pairs = {
        (prompt.text, control.text): (prompt, control)
        for prompt, control in zip(prompts, controls, strict=True)
    }
    repeated, same = len(prompts) - len(pairs), sum(text == other for text, other in pairs)
    _check_differ(same, len(pairs))
    notes = [f"repeated pairs, which count once: {repeated}"] if repeated else []
    notes += [f"pairs of one text twice, which say nothing: {same}"] if same else []
    return [prompt for prompt, _ in pairs.values()], [control for _, control in pairs.values()], notes


def _once(prompts: Sequence[Prompt], kind: str) -> tuple[list[Prompt], list[str]]:
    """Each text once, and a note where one was repeated; `kind` is `prompts` or `controls`."""
    once = distinct(prompts)
    repeated = len(prompts) - len(once)
    return once, [f"repeated {kind}, which count once: {repeated}"] if repeated else []


def _check_differ(shared: int, *counts: int) -> None:
    if all(shared == count for count in counts):
        raise RequestError("the controls are the prompts again: give other texts, or no controls")
