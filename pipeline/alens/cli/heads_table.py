"""What `alens heads` prints and draws: the first heads of each family, and one family over all heads.

In: `HeadFamilies`. Out: a table for 80 columns, and a grid of heads.
"""

from typing import TYPE_CHECKING

from alens.cli.console import show
from alens.errors import RequestError
from alens.pictures.numbers import fixed, signed

if TYPE_CHECKING:
    from alens.pictures.head_grid import HeadGrid
    from alens.studies.families.result import HeadFamilies

MEASURES = {
    "previous-token": ("the token before", "two before"),
    "duplicate-token": ("the same token, earlier", "the same places, other tokens"),
    "induction": ("the token after that", "the same places, other tokens"),
    "first-token": ("the first token", "the second one"),
}
"""By family: what is attended to, and by the control."""


def check_family(name: str) -> None:
    """Raises `RequestError` for a family that is not scored."""
    if name not in MEASURES:
        raise RequestError(f"there is no family {name!r}: take one of {', '.join(MEASURES)}")


def show_families(families: "HeadFamilies", most: int) -> None:
    """Print the first `most` heads of each family."""
    from alens.cli.tables import show_table

    settings = families.settings
    first = "a random token first" if families.bos is None else "BOS first"
    lines = []
    for name, scores in families.families.items():
        shown = scores[:most]
        measure, control = MEASURES[name]
        lines.append(
            (
                name,
                "\n".join(f"{one.layer}.{one.head}" for one in shown),
                "\n".join(fixed(one.score) for one in shown),
                "\n".join(fixed(one.control) for one in shown),
                "\n".join(signed(one.above) for one in shown),
                f"attention to {measure}; control: {control}",
            )
        )
    show_table(
        ("family", "head", "score", "control", "above", "measure"),
        lines,
        title=f"{families.model}: {settings.sequences} random sequences of {settings.length} tokens twice, {first}",
        text=("family", "measure"),
        spaced=True,
    )
    show(f"{len(next(iter(families.families.values()))):,} heads in each family; --json has all of them")


def head_grid(families: "HeadFamilies", name: str) -> "HeadGrid":
    """How far each head stands above its control in one family."""
    from alens.pictures.head_grid import HeadGrid

    measure, control = MEASURES[name]
    return HeadGrid(
        title=f"{name}: attention to {measure}, less that to {control}",
        values={(one.layer, one.head): one.above for one in families.families[name]},
        number_title="score above control",
        centre=0.0,
    )
