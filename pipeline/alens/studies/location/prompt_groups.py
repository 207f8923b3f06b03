"""Prompts and controls as independent samples: a text that stands in a file twice says no more than once.

In: prompts and controls as they were given. Out: each text once, in pairs each pair once, and notes of what was left
out. A test that counted repeats would find a small p by copying lines.
"""

from collections.abc import Sequence

from alens.errors import RequestError
from alens.reading.prompts import Prompt, distinct
from alens.studies.location.effect_tests import check_groups
from alens.studies.location.settings import LocateSettings


def groups(
    prompts: Sequence[Prompt], controls: Sequence[Prompt] | None, settings: LocateSettings
) -> tuple[list[Prompt], list[Prompt] | None, list[str]]:
    """Prompts, controls and notes. Raises `RequestError` for too few of either once repeats are left out, for pairs
    that do not match, and for controls that are the prompts again."""
    check_groups(len(prompts), None if controls is None else len(controls), settings)
    if controls is None:
        ours, notes = _once(prompts, "prompts")
        theirs = None
    elif settings.paired:
        pairs = {
            (prompt.text, control.text): (prompt, control)
            for prompt, control in zip(prompts, controls, strict=True)
        }
        ours, theirs = ([pair[side] for pair in pairs.values()] for side in (0, 1))
        repeated, same = len(prompts) - len(pairs), sum(one == other for one, other in pairs)
        notes = [f"repeated pairs, which count once: {repeated}"] if repeated else []
        _check_differ(same, len(pairs), len(pairs))
        notes += [f"pairs of one text twice, which say nothing: {same}"] if same else []
    else:
        ours, notes = _once(prompts, "prompts")
        theirs, more = _once(controls, "controls")
        both = len({prompt.text for prompt in ours} & {control.text for control in theirs})
        _check_differ(both, len(ours), len(theirs))
        notes += more
        notes += [f"prompts that are controls too, which draws the effect to 0: {both}"] if both else []
    try:
        check_groups(len(ours), None if theirs is None else len(theirs), settings)
    except RequestError as error:
        raise RequestError("; ".join([str(error), *notes])) from None
    return ours, theirs, notes


def _once(prompts: Sequence[Prompt], what: str) -> tuple[list[Prompt], list[str]]:
    found = distinct(prompts)
    repeated = len(prompts) - len(found)
    return found, [f"repeated {what}, which count once: {repeated}"] if repeated else []


def _check_differ(shared: int, *counts: int) -> None:
    if all(shared == count for count in counts):
        raise RequestError("the controls are the prompts again: give other texts, or no controls")
