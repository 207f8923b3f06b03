"""The variants that the configuration of a sweep asks for. Pure.

In: a TOML file: settings of `alens fit` at the top, lists of values in `[grid]`, and tables `[[variant]]`. Out: the
settings at the top, and a `Variant` for each combination of the grid and for each table, with a name made of what
it changes, which is also the name of its directory.
"""

import dataclasses
import hashlib
import itertools
import json
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from alens.errors import RequestError
from alens.fields import fields_of
from alens.fit.settings import FitSettings
from alens.heads import ByName, normal

FIELDS = fields_of(FitSettings)
ALIASES = {"lens_option": "lens_options", "objective_option": "objective_options"}
"""Names that the configuration of `alens fit` has for fields."""

SAME_FOR_ALL = ("eval_rows",)
"""Settings that no variant may change: all are compared on the same held-out rows."""

LONGEST_NAME = 120
"""Characters of a name: file systems take 255 bytes, and people read paths."""

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._=+,-]*")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Variant:
    """One fit of a sweep."""

    name: str
    settings: FitSettings


@dataclasses.dataclass(frozen=True, kw_only=True)
class Grid:
    """All the fits of a sweep."""

    base: FitSettings
    """The settings at the top of the file; all variants are judged on their held-out rows."""
    variants: tuple[Variant, ...]


def read_sweep(path: str | Path) -> Grid:
    """The sweep that a TOML file asks for. Raises `RequestError` for anything in it that is wrong."""
    try:
        return parse(tomllib.loads(Path(path).read_text(encoding="utf-8-sig")), str(path))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RequestError(f"{path} is not a TOML file: {error}") from None
    except OSError as error:
        raise RequestError(f"cannot read {path}: {error.strerror}") from None


def parse(config: Mapping[str, Any], where: str) -> Grid:
    """The sweep that a configuration asks for; `where` names the file in errors."""
    top = dict(config)
    grid, tables = top.pop("grid", {}), top.pop("variant", [])
    if not isinstance(grid, dict):
        raise RequestError(f"grid of {where} is not a table: write [grid], and a list of values for each key")
    if not (isinstance(tables, list) and all(isinstance(table, dict) for table in tables)):
        raise RequestError(f"variant of {where} is not a list of tables: write [[variant]] above each")
    base = _settings(FitSettings(), _checked(top, where, ("grid", "variant")), where)
    variants = (
        *_product(base, grid, f"[grid] of {where}"),
        *_tables(base, tables, f"[[variant]] of {where}"),
    )
    variants = variants or (Variant(name="base", settings=base),)
    _check_distinct(variants, where)
    return Grid(base=base, variants=variants)


def _product(base: FitSettings, grid: Mapping[str, Any], where: str) -> list[Variant]:
    lists = {}
    for key, values in grid.items():
        if not (isinstance(values, list) and values):
            raise RequestError(f"{key} in {where} is {values!r}: it must be a list of values to try")
        lists[key] = values
    if not lists:
        return []
    changes = [
        _checked(dict(zip(lists, combination, strict=True)), where, (), SAME_FOR_ALL)
        for combination in itertools.product(*lists.values())
    ]
    varied = [_field(key) for key, values in lists.items() if len(values) > 1]
    return [_variant(base, change, [key for key in varied if key in change], where) for change in changes]


def _tables(base: FitSettings, tables: list[dict[str, Any]], where: str) -> list[Variant]:
    variants = []
    for table in tables:
        given = dict(table)
        name = given.pop("name", None)
        if name is not None and not (isinstance(name, str) and NAME.fullmatch(name)):
            raise RequestError(
                f"name in {where} is {name!r}: it names a directory, take letters, digits and any of . _ = + , -"
            )
        change = _checked(given, where, ("name",), SAME_FOR_ALL)
        changed = [key for key, value in change.items() if value != getattr(base, key)]
        variants.append(_variant(base, change, changed, where, name))
    return variants


def _variant(
    base: FitSettings, change: Mapping[str, Any], changed: list[str], where: str, name: str | None = None
) -> Variant:
    settings = _settings(base, change, where)
    if name is None:
        name = ",".join(_part_of_name(key, change[key]) for key in changed) or "base"
        if len(name) > LONGEST_NAME:
            digest = hashlib.sha256(json.dumps(settings.to_json()).encode()).hexdigest()[:8]
            name = f"{name[: LONGEST_NAME - 9]}-{digest}"
    return Variant(name=name, settings=settings)


def _part_of_name(key: str, value: Any) -> str:
    """`lr=0.01`, `layers=0+3`, `lens_options.rank=8`: safe in a path."""
    joint = "." if isinstance(value, dict) and value else "="
    return re.sub(r"[^A-Za-z0-9._=+-]", "-", f"{key}{joint}{_text(value)}")


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return "+".join(f"{key}={_text(part)}" for key, part in value.items()) or "none"
    if isinstance(value, (list, tuple)):
        return "+".join(_text(part) for part in value)
    return str(value)


def _settings(base: FitSettings, change: Mapping[str, Any], where: str) -> FitSettings:
    try:
        return dataclasses.replace(base, **change)
    except RequestError as error:
        raise RequestError(f"{where}: {error}") from None


def _field(key: str) -> str:
    name = key.replace("-", "_")
    return ALIASES.get(name, name)


def _checked(
    given: Mapping[str, Any], where: str, more: tuple[str, ...], refused: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Values that fit, by the names of fields. `more` are further keys that are valid there."""
    values = {}
    for key, value in given.items():
        name = _field(key)
        if name in refused:
            raise RequestError(
                f"{where} has {key}: variants are compared on the same held-out rows, put it at the top of the file"
            )
        if name not in FIELDS:
            valid = sorted({*FIELDS, *more} - set(refused))
            raise RequestError(f"{where} has the unknown key {key!r}: valid keys are {', '.join(valid)}")
        values[name] = _fitting(name, value, where)
    return values


def _fitting(name: str, value: Any, where: str) -> Any:
    """The value as the field has it: 1.0 for 1 where the field is a float, a tuple for a list or for heads."""
    field = FIELDS[name]
    expected = field.mismatch(value)
    if (field.several or field.kind is ByName) and not value:
        expected = field.expected
    if expected is not None:
        raise RequestError(f"{where} gives {name} the value {value!r}: it must be {expected}")
    if field.kind is ByName:
        return normal(value)
    if field.several:
        return tuple(value)
    return float(value) if field.kind is float else value


def _check_distinct(variants: tuple[Variant, ...], where: str) -> None:
    """Raises `RequestError` where two variants have the same name or are the same fit."""
    names: dict[str, FitSettings] = {}
    for variant in variants:
        if variant.name in names:
            raise RequestError(f"{where} has two variants {variant.name}: give one of them another name")
        for name, settings in names.items():
            if settings == variant.settings:
                raise RequestError(f"{where} asks for the same fit twice: {name} and {variant.name}")
        names[variant.name] = variant.settings
