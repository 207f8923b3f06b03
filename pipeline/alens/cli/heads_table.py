"""What `alens heads` prints and draws: the first heads of each family, and one family over all heads.

In: `HeadFamilies`. Out: a table for 80 columns, and a grid of heads.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from alens.cli.console import show
from alens.errors import RequestError
from alens.pictures.numbers import fixed, signed

if TYPE_CHECKING:
    from alens.pictures.head_grid import HeadGrid
    from alens.studies.families.result import HeadFamilies

LOOKS = {
    "previous-token": ("the token before", "two before"),
    "duplicate-token": ("the same token, earlier", "the same places, other tokens"),
    "induction": ("the token after that", "the same places, other tokens"),
    "first-token": ("the first token", "the second one"),
}
"""By family: what is attended to, and by the control."""

WRITES = {"copying": ("the token itself", "raised"), "suppression": ("the token itself", "lowered")}
"""By family: which token of a map, and what becomes of it."""


def check_family(name: str, families: list[str]) -> None:
    """Raises `RequestError` for a family that is not scored."""
    if name not in families:
        raise RequestError(f"there is no family {name!r}: take one of {', '.join(families)}")


def show_families(families: "HeadFamilies", most: int) -> None:
    """Print the first `most` heads of each family."""
    from alens.cli.tables import show_table

    settings = families.settings
    first = "a random token first" if families.bos is None else "BOS first"
    lines = []
    for name, scores in families.families.items():
        shown = scores[:most]
        lines.append(
            (
                name,
                "\n".join(f"{one.layer}.{one.head}" for one in shown),
                "\n".join(fixed(one.score) for one in shown),
                "\n".join(fixed(one.control) for one in shown),
                "\n".join(signed(one.above) for one in shown),
                _measure(name, families),
            )
        )
    show_table(
        ("family", "head", "score", "control", "above", "measure"),
        lines,
        title=f"{families.model}: {settings.sequences} random sequences of {settings.length} tokens twice, {first}",
        text=("family", "measure"),
        spaced=True,
    )
    show(*_notes(families))


def head_grid(families: "HeadFamilies", name: str) -> "HeadGrid":
    """How far each head stands above its control in one family. Raises `RequestError` for one that was left out."""
    from alens.pictures.head_grid import HeadGrid

    check_family(name, list(families.families))
    return HeadGrid(
        title=f"{name}: {_measure(name, families)}",
        values={(one.layer, one.head): one.above for one in families.families[name]},
        number_title="score above control",
        centre=0.0,
    )


def _measure(name: str, families: "HeadFamilies") -> str:
    """What a score and its control are."""
    if name in LOOKS:
        measure, control = LOOKS[name]
        return f"attention to {measure}; control: {control}"
    which, how = WRITES.get(name, ("the partner", "raised"))
    size = families.relations.get(name)
    wrong = "other tokens" if size is None else f"other partners; {size.pairs} pairs"
    return f"{which} among the {families.settings.top_k} most {how}; control: {wrong}"


def _notes(families: "HeadFamilies") -> Iterator[str]:
    yield f"{len(next(iter(families.families.values()))):,} heads in each family; --json has all of them"
    if families.left_out is not None:
        yield f"copying, suppression and relations are left out: {families.left_out}"
        return
    for name, size in families.relations.items():
        if name not in families.families:
            yield (
                f"{name} is left out: {size.pairs} of {size.pairs + size.left_out} pairs are single tokens of this model"
            )
