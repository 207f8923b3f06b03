"""Commands that read documents changed at random do their work, or end with one line and an exit code.

`make test-all` takes a minute for it; more by hand: `.venv/bin/python -m tests.fuzz.by_hand --rounds 200 --seed 3`.
"""

import os
import random
import shutil
from pathlib import Path

import pytest

from alens.store import commits

from . import specimens, trials

ROUNDS = int(os.environ.get("ALENS_FUZZ_ROUNDS", "10"))
SEED = int(os.environ.get("ALENS_FUZZ_SEED", "0"))

QUICK = ("plan", "record", "skeleton", "manifest", "metadata", "tokens", "lens.json", "claim")
QUICK_ROUNDS = 12

BY_NAME = {kind.name: kind for kind in specimens.KINDS}


@pytest.fixture(scope="module")
def quick(document_cache: Path, demo_lenses: Path, tmp_path_factory: pytest.TempPathFactory) -> trials.Bench:
    """Caches and lenses that other tests have made already."""
    folder = tmp_path_factory.mktemp("fuzz")
    for name in ("whole", "work"):
        (folder / name).mkdir()
    shutil.copytree(document_cache, folder / "whole" / "cache")
    shutil.copytree(demo_lenses, folder / "whole" / "lenses")
    specimens.make_claim(folder / "whole")
    return trials.Bench(folder / "whole", folder / "work")


def test_readers_of_records_say_one_line(quick: trials.Bench) -> None:
    kinds = [BY_NAME[name] for name in QUICK]
    assert not (findings := trials.fuzz(quick, kinds, QUICK_ROUNDS, SEED, first_only=True)), trials.shown(
        findings
    )


def test_verify_notices_every_changed_bit(quick: trials.Bench) -> None:
    findings = []
    for number, name in enumerate(
        ("plan", "record", "skeleton", "manifest", "metadata", "tokens", "numbers")
    ):
        findings.append(quick.try_one(BY_NAME[name], specimens.VERIFY, random.Random(number), forged=False))
    assert not (wrong := [finding for finding in findings if finding]), trials.shown(wrong)


def test_what_is_not_compared_with_its_schema_is_found(
    quick: trials.Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fuzz itself can fail: without the schema of records, some of their changes end in tracebacks."""
    monkeypatch.setattr(commits.typed, "wrong", lambda kind, body: None)
    findings = trials.fuzz(quick, [BY_NAME["record"]], 3 * QUICK_ROUNDS, SEED, first_only=True)
    assert {finding.what for finding in findings} >= {"traceback"}


def test_the_forger_gives_the_hashes_that_alens_gives(quick: trials.Bench) -> None:
    """With nothing changed and every hash made anew, the bytes are the same; otherwise the fuzz would only see hashes refused."""
    for name in ("plan.json", "tokens.npy", "commits/000000.json", "arrays.zarr/rows/token/zarr.json"):
        trials.forge.mend(quick.folder, quick.folder / "cache" / name)
    for path in (quick.whole / "cache").rglob("*.json"):
        if path.name != "zarr.json":
            assert (quick.folder / path.relative_to(quick.whole)).read_bytes() == path.read_bytes(), path


@pytest.mark.slow
def test_every_reader_says_one_line(tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    (tmp_path / "work").mkdir()
    specimens.make(tmp_path / "whole")
    findings = trials.fuzz(trials.Bench(tmp_path / "whole", tmp_path / "work"), specimens.KINDS, ROUNDS, SEED)
    assert not findings, trials.shown(findings)
