"""What the fields of a settings class say, and which values fit them."""

import dataclasses
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pytest
from annotated_types import Ge, Interval, Le, Lt

from alens.errors import RequestError
from alens.fields import NO_DEFAULT, check, fields_of


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inherited:
    store: Path
    """Where
    it lies."""
    seed: Annotated[int, Ge(0), Lt(2**63)] = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Example(Inherited):
    layers: tuple[int, ...] | None = None
    """Layers to take; such as 0,2. None: all there are."""
    share: Annotated[float, Interval(gt=0, lt=1)] = 0.5
    """A share."""
    rows: Annotated[int, Ge(1), Le(1_000_000)] | None = None
    dtype: Literal["float16", "int8"] = "float16"
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    exact: bool = False
    strengths: tuple[float, ...] = (0.5, 1)
    other: Inherited | None = None
    """Not an option."""

    def __post_init__(self) -> None:
        check(self)


def test_a_field_says_its_type_its_default_and_its_meaning() -> None:
    fields = fields_of(Example)
    assert list(fields) == [
        "store",
        "seed",
        "layers",
        "share",
        "rows",
        "dtype",
        "options",
        "exact",
        "strengths",
    ]
    store, layers, dtype, strengths = (fields[name] for name in ("store", "layers", "dtype", "strengths"))
    assert (store.kind, store.default, store.help) == (Path, NO_DEFAULT, "Where it lies.")
    assert (layers.kind, layers.several, layers.optional) == (int, True, True)
    assert (layers.help, layers.if_none) == ("Layers to take; such as 0,2.", "all there are")
    assert (dtype.kind, dtype.choices, dtype.default) == (str, ("float16", "int8"), "float16")
    assert (strengths.kind, strengths.several, strengths.default) == (float, True, (0.5, 1))
    assert (fields["rows"].bounds, fields["share"].bounds) == ({"ge": 1, "le": 1_000_000}, {"gt": 0, "lt": 1})
    assert (fields["options"].kind, fields["options"].default) == (dict, {})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"seed": -1}, "seed is -1: it must be at least 0 and less than 2^63"),
        ({"seed": 1.5}, "seed is 1.5: it must be a whole number"),
        ({"seed": True}, "seed is True: it must be a whole number"),
        ({"seed": None}, "seed is None: it must be a whole number"),
        ({"rows": 0}, "rows is 0: it must be at least 1 and at most 1000000"),
        ({"share": float("nan")}, "share is nan: it must be a number above 0 and less than 1"),
        ({"share": "half"}, "share is 'half': it must be a number"),
        ({"share": 1}, "share is 1: it must be a number above 0 and less than 1"),
        ({"dtype": "int4"}, "dtype is 'int4': it must be one of float16, int8"),
        ({"layers": 3}, "layers is 3: it must be a list of whole numbers such as [0, 3]"),
        ({"layers": ("0",)}, "layers is ('0',): it must be a list of whole numbers such as [0, 3]"),
        ({"strengths": (1, float("inf"))}, "strengths is (1, inf): it must be a finite number"),
        ({"exact": 1}, "exact is 1: it must be true or false"),
        ({"options": []}, "options is []: it must be a table of options such as {rank = 8}"),
    ],
)
def test_a_value_that_does_not_fit_is_named(given: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError) as error:
        Example(store=Path("x"), **given)
    assert str(error.value) == message


def test_numbers_of_numpy_lists_and_text_for_a_path_fit() -> None:
    Example(store="x", seed=np.int64(3), share=np.float32(0.25), layers=[0, 3], rows=None, strengths=(1,))  # type: ignore[arg-type]


def test_a_class_without_source_has_no_help() -> None:
    made = dataclasses.make_dataclass("Made", [("rows", int, 3)])
    assert fields_of(made)["rows"].help == ""
