"""The TOML files of the job folders give settings that the commands take; every file there has a line in its README."""

import re
from pathlib import Path

import click
import pytest

from alens.cli import group
from alens.cli.cache import CACHE
from alens.cli.fit import FIT
from alens.fit.settings import FitSettings
from alens.job.worker import parse_worker
from alens.store import typed
from alens.store.schema import CacheSettings

from . import pages

CACHES = sorted((pages.ROOT / "cache_jobs").glob("*.toml"))
FITS = sorted((pages.ROOT / "train_jobs").glob("*.toml"))


def parameters(name: str, config: Path) -> dict[str, object]:
    """What `alens NAME --config CONFIG` would be called with; an unknown key raises."""
    parent = click.Context(group, info_name="alens", **group.context_settings)
    command = group.get_command(parent, name)
    assert command is not None
    return command.make_context(name, ["--config", str(config)], parent=parent).params


@pytest.mark.parametrize("config", CACHES, ids=lambda path: path.name)
def test_a_cache_configuration_is_valid(config: Path) -> None:
    given = parameters("cache", config)
    settings = typed.parse(CacheSettings, CACHE.values(given), "settings", "")
    assert settings.max_rows is not None and settings.max_rows % settings.rows_per_shard == 0
    assert parse_worker(str(given["worker"])).count == 1
    assert given["model"] and given["corpus"] and given["store"]


@pytest.mark.parametrize("config", FITS, ids=lambda path: path.name)
def test_a_fit_configuration_is_valid(config: Path) -> None:
    given = parameters("fit", config)
    FitSettings(**FIT.values(given))
    assert given["lenses"]


def test_the_fit_reads_the_store_that_the_cache_writes() -> None:
    for config in FITS:
        store = (config.parent / str(parameters("fit", config)["store"])).resolve()
        assert store in [(c.parent / str(parameters("cache", c)["store"])).resolve() for c in CACHES]


@pytest.mark.parametrize("folder", ["cache_jobs", "train_jobs"])
def test_every_file_has_a_line_in_the_readme(folder: str) -> None:
    page = (pages.ROOT / folder / "README.md").read_text()
    listed = re.findall(r"^\| \[(.+)\]\(\1\) \| ", page, re.MULTILINE)
    there = {path.name for path in (pages.ROOT / folder).iterdir() if path.is_file()}
    assert set(listed) == there - {"README.md"}


def test_there_are_configurations() -> None:
    assert CACHES and FITS
