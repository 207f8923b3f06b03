"""What is uploaded for a release: the sdist and the wheel hold what they should, and the wheel works without the checkout.

`.ci/package` does the same with the network: it installs them, with all they need, in fresh environments.
"""

import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (ROOT / ".git").exists(), reason="git says which files the project has"),
]


def tracked() -> set[str]:
    """The project's files, as git has them."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    return {name for name in listed.stdout.split("\0") if name and (ROOT / name).exists()}


def run(*words: object, cwd: Path, env: Mapping[str, str] | None = None) -> str:
    done = subprocess.run(
        [str(word) for word in words], cwd=cwd, env=env, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """An sdist of a copy of the checkout, and the wheel that the unpacked sdist gives."""
    work = tmp_path_factory.mktemp("distributions")
    for name in tracked():
        (work / "checkout" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, work / "checkout" / name)
    backend = "import sys; from setuptools import build_meta; getattr(build_meta, sys.argv[1])(sys.argv[2])"
    run(sys.executable, "-c", backend, "build_sdist", work / "dist", cwd=work / "checkout")
    (sdist,) = (work / "dist").glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(work / "unpacked", filter="data")
    (unpacked,) = (work / "unpacked").iterdir()
    run(sys.executable, "-c", backend, "build_wheel", work / "dist", cwd=unpacked)
    (wheel,) = (work / "dist").glob("*.whl")
    return sdist, wheel


def test_the_sdist_holds_the_whole_project(distributions: tuple[Path, Path]) -> None:
    with tarfile.open(distributions[0]) as archive:
        held = {name.partition("/")[2] for name in archive.getnames() if archive.getmember(name).isfile()}
    assert tracked() - held == set()
    added = {name for name in held - tracked() if not name.startswith("pipeline/alens.egg-info/")}
    assert added == {"PKG-INFO", "setup.cfg"}


def test_the_wheel_holds_the_package_and_nothing_else(distributions: tuple[Path, Path]) -> None:
    with zipfile.ZipFile(distributions[1]) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    package = {name.removeprefix("pipeline/") for name in tracked() if name.startswith("pipeline/alens/")}
    assert held == package


def test_lenses_are_made_and_read_without_the_checkout(
    distributions: tuple[Path, Path], tmp_path: Path
) -> None:
    place = tmp_path / "environment"
    venv.create(place)
    (packages,) = place.glob("lib/python*/site-packages")
    # What alens needs is borrowed; alens itself can come from the wheel alone.
    borrowed = [path for path in sys.path if path.endswith("site-packages")]
    (packages / "borrowed.pth").write_text("\n".join(borrowed))
    python = place / "bin" / "python"
    run(
        sys.executable,
        "-m",
        "pip",
        "--python",
        python,
        "install",
        "-q",
        "--no-index",
        "--no-deps",
        distributions[1],
        cwd=tmp_path,
    )
    env = {
        "PATH": f"{place / 'bin'}:/usr/bin:/bin",
        "HOME": str(tmp_path),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
    }
    where = run(python, "-c", "import alens; print(alens.__file__)", cwd=tmp_path, env=env)
    assert Path(where.strip()).is_relative_to(place)
    for command in (
        "alens cache demo demo cache --max-rows 4096 --rows-per-shard 1024 --layers 3",
        "alens fit cache lenses --steps 3",
        "alens read lenses waited --head 3 --html page.html",
    ):
        run(*command.split(), cwd=tmp_path, env=env)
    assert (tmp_path / "page.html").stat().st_size > 50_000
