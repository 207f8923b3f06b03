"""The base class of results: a short repr, plain JSON values, a frame."""

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alens.errors import RunError
from alens.result import REPR_LENGTH, Result, flat, plain


@dataclass(frozen=True, kw_only=True)
class Head:
    layer: int
    kl: np.float32
    interval: tuple[float, float] | None = None


@dataclass(frozen=True, kw_only=True)
class Reading(Result):
    name: str
    rows: int
    mean: float
    path: Path = Path("cache")
    z_NE: np.ndarray = field(default_factory=lambda: np.zeros((2, 3), np.float16))
    heads: tuple[Head, ...] = ()
    by_layer: dict[int, list[float]] = field(default_factory=dict)


READING = Reading(
    name="demo",
    rows=512,
    mean=2.0 / 3,
    heads=(Head(layer=3, kl=np.float32(0.5), interval=(0.25, 0.75)), Head(layer=4, kl=np.float32(1.5))),
    by_layer={3: [0.5]},
)


def test_a_repr_names_the_class_and_its_numbers_and_holds_no_array() -> None:
    assert repr(READING) == "<Reading: name='demo', rows=512, mean=0.6667>"


def test_a_repr_is_cut_at_its_length() -> None:
    long = repr(Reading(name="x" * 1000, rows=1, mean=0.0))
    assert len(long) == REPR_LENGTH
    assert long.endswith("...>")


def test_a_result_may_say_its_own_headline() -> None:
    @dataclass(frozen=True)
    class Named(Result):
        rows: int

        def headline(self) -> str:
            return f"{self.rows} rows"

    assert repr(Named(rows=3)) == "<Named: 3 rows>"


def test_json_holds_plain_values_alone() -> None:
    body = READING.to_json()
    assert body == json.loads(json.dumps(body))
    assert body == {
        "name": "demo",
        "rows": 512,
        "mean": 2.0 / 3,
        "path": "cache",
        "z_NE": [[0.0] * 3] * 2,
        "heads": [
            {"layer": 3, "kl": 0.5, "interval": [0.25, 0.75]},
            {"layer": 4, "kl": 1.5, "interval": None},
        ],
        "by_layer": {"3": [0.5]},
    }


def test_a_result_within_a_value_gives_its_own_document() -> None:
    @dataclass(frozen=True)
    class Own(Result):
        rows: int

        def to_json(self) -> dict[str, Any]:
            return {"num": self.rows}

    assert plain([Own(rows=2)]) == [{"num": 2}]


def test_a_frame_has_a_row_a_head_and_intervals_as_two_columns() -> None:
    frame = READING.to_frame()
    assert list(frame.columns) == ["layer", "kl", "interval.low", "interval.high"]
    assert frame["kl"].tolist() == [0.5, 1.5]
    assert frame["interval.high"].isna().tolist() == [False, True]


def test_nested_names_are_joined_by_dots() -> None:
    record = {"layer": 1, "lens": {"kl": 0.5, "intervals": {"kl": [0, 1], "bits": None}, "bins": [1, 2, 3]}}
    assert flat(record) == {
        "layer": 1,
        "lens.kl": 0.5,
        "lens.intervals.kl.low": 0,
        "lens.intervals.kl.high": 1,
        "lens.intervals.bits.low": None,
        "lens.intervals.bits.high": None,
        "lens.bins": [1, 2, 3],
    }


def test_without_pandas_a_frame_is_an_error_of_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(
        RunError, match=r"^to_frame needs pandas, .*: run `pip install pandas`, or take records"
    ):
        READING.to_frame()
