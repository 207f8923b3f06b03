from pathlib import Path
from typing import Any

import pytest

from alens.errors import RequestError
from alens.fit.settings import FitSettings
from alens.sweep import variants


def names(config: dict[str, Any]) -> list[str]:
    return [variant.name for variant in variants.parse(config, "c.toml").variants]


def test_a_file_gives_the_product_of_its_lists_and_then_its_tables(tmp_path: Path) -> None:
    config = tmp_path / "c.toml"
    config.write_text(
        'batch-rows = 512\nseed = 7\n[grid]\nlr = [0.01, 1]\nlens = ["linear", "low-rank"]\n'
        '[[variant]]\nname = "wide"\nlens = "low-rank"\n[variant.lens-option]\nrank = 32\n'
    )
    grid = variants.read_sweep(config)
    assert grid.base == FitSettings(batch_rows=512, seed=7)
    made = {v.name: (v.settings.lr, v.settings.lens, v.settings.lens_options) for v in grid.variants}
    assert made == {
        "lr=0.01,lens=linear": (0.01, "linear", {}),
        "lr=0.01,lens=low-rank": (0.01, "low-rank", {}),
        "lr=1.0,lens=linear": (1.0, "linear", {}),
        "lr=1.0,lens=low-rank": (1.0, "low-rank", {}),
        "wide": (None, "low-rank", {"rank": 32}),
    }
    assert all((v.settings.batch_rows, v.settings.seed) == (512, 7) for v in grid.variants)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, ["base"]),
        ({"grid": {"layers": [[0], [0, 3]]}}, ["layers=0", "layers=0+3"]),
        ({"grid": {"heads": ["0.1,3.4-5", [1], "2"]}}, ["heads=0.1+3.4+3.5", "heads=1", "heads=2"]),
        (
            {"heads": ["0.1"], "variant": [{"heads": "0.1", "seed": 1}, {"heads": "3.1"}]},
            ["seed=1", "heads=3.1"],
        ),
        ({"grid": {"lr": [1e-5], "seed": [0, 1]}}, ["seed=0", "seed=1"]),
        ({"grid": {"lens_options": [{"rank": 4}, {}]}}, ["lens_options.rank=4", "lens_options=none"]),
        ({"grid": {"lens": ["a/b:C", "linear"]}}, ["lens=a-b-C", "lens=linear"]),
        ({"lr": 0.5, "variant": [{"lr": 0.5, "seed": 1}, {}]}, ["seed=1", "base"]),
    ],
)
def test_names_are_made_of_what_differs(config: dict[str, Any], expected: list[str]) -> None:
    assert names(config) == expected


def test_a_long_name_is_cut_and_stays_distinct() -> None:
    long = names({"grid": {"layers": [[*range(80), last] for last in (80, 81)]}})
    assert len(set(long)) == 2 and all(len(name) == variants.LONGEST_NAME for name in long)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"colour": 1}, "c.toml has the unknown key 'colour': valid keys are batch_rows, epochs, eval_rows, grid,"),
        ({"grid": {"colour": [1]}}, r"\[grid\] of c.toml has the unknown key 'colour': valid keys are batch_rows, epochs, heads,"),
        ({"variant": [{"colour": 1}]}, r"\[\[variant\]\] of c.toml has the unknown key .* name,"),
        ({"heads": 3.1}, "c.toml gives heads the value 3.1: it must be a string such as"),
        ({"grid": {"heads": ["0,3.1"]}}, "it must be either head numbers"),
        ({"heads": []}, "it must be head numbers such as"),
        ({"grid": {"lr": 0.1}}, "lr in .* is 0.1: it must be a list of values to try"),
        ({"grid": {"lr": []}}, r"lr in .* is \[\]"),
        ({"grid": {"layers": [0, 3]}}, "layers the value 0: it must be a list of whole numbers such as"),
        ({"grid": {"lr": ["fast"]}}, "lr the value 'fast': it must be a number"),
        ({"lr": True}, "lr the value True: it must be a number"),
        ({"steps": 1.5}, "steps the value 1.5: it must be a whole number"),
        ({"lens": 3}, "lens the value 3: it must be a string"),
        ({"lens_options": "rank"}, "lens_options the value 'rank': it must be a table of options"),
        ({"grid": {"eval_rows": [1, 2]}}, "has eval_rows: variants are compared on the same held-out rows"),
        ({"grid": {"lr": [0.1, -1]}}, r"\[grid\] of c.toml gives lr the value -1: it must be a number above 0"),
        ({"variant": [{"name": "../up"}]}, "name in .* is '../up': it names a directory"),
        ({"variant": [{"name": "a", "seed": 1}, {"name": "a"}]}, "two variants a"),
        ({"grid": {"seed": [1, 1]}}, "two variants seed=1"),
        ({"grid": {"seed": [1, 2]}, "variant": [{"name": "a", "seed": 2}]}, "the same fit twice: seed=2 and a"),
        ({"grid": [1]}, "grid of c.toml is not a table"),
        ({"variant": {"lr": 1}}, "variant of c.toml is not a list of tables"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_line_that_says_what(config: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        variants.parse(config, "c.toml")


def test_a_byte_order_mark_is_no_part_of_a_sweep(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text("seed = 7\n[grid]\nlr = [0.01, 1]\n", encoding="utf-8-sig")
    assert variants.read_sweep(tmp_path / "c.toml").base.seed == 7


def test_a_file_that_is_none_or_no_toml_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"cannot read .*c.toml"):
        variants.read_sweep(tmp_path / "c.toml")
    (tmp_path / "c.toml").write_text("lr = ")
    with pytest.raises(RequestError, match="is not a TOML file"):
        variants.read_sweep(tmp_path / "c.toml")
