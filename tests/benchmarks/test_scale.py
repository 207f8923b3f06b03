"""The page on scale holds what the benchmark computes."""

import dataclasses
import runpy
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def scale() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "benchmarks/scale.py"))


def test_the_page_has_the_tables(scale: dict[str, Any]) -> None:
    page = (ROOT / "docs/scale.md").read_text()
    for table in "\n".join(scale["tables"](scale["Rates"]())).split("\n\n"):
        assert f"\n\n{table}\n\n" in page


def test_what_grows_with_what(scale: dict[str, Any]) -> None:
    """`info` with the names alone, a worker's start with its share and the tokens, never with all records."""
    rates = scale["Rates"]()
    small = scale["Store"](rows=1e9, workers=10, rows_per_shard=8192, rates=rates)
    large = dataclasses.replace(small, rows=1e11)
    assert large.info_s - small.info_s == pytest.approx((large.shards - small.shards) * rates.name_s)
    more = dataclasses.replace(large, workers=1000)
    assert large.share_s - more.share_s == pytest.approx(large.every_record_s * (1 / 10 - 1 / 1000))
    assert large.bytes == pytest.approx(100 * small.bytes, rel=1e-4)


def test_rates_of_this_machine(scale: dict[str, Any]) -> None:
    assert all(rate > 0 for rate in scale["measured"](names=100).values())
