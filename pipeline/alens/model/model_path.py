"""From MODEL, as a user writes it, to the directory or the GGUF file on this machine that holds the model.

In: a path, a hub id, or `demo`. Out: a path, and the commit that a hub id resolved to.
"""

from pathlib import Path

from alens import demo
from alens.errors import RequestError
from alens.model import gguf_file, weights
from alens.sources import hub, local_or_hub

FILES = ["*.json", "*.txt", "*.model", "chat_template.jinja", weights.WHOLE]
"""The files of a model that are fetched first: config, tokenizer, and weights in one file. These name all others."""

GIVE = "give a Hugging Face directory, a GGUF file, a hub id, or `demo`"


def locate(model: str, revision: str | None, local_only: bool) -> tuple[Path, str | None]:
    """The directory or GGUF file of MODEL, and the commit of a hub id. Raises `RequestError`."""
    if model == "demo":
        return demo.MODEL, None
    path = Path(model)
    if (path / "config.json").is_file():
        return path, None
    if path.is_dir() and (inside := gguf_file.only_one(path)) is not None:
        path = inside
    if path.is_file() and gguf_file.is_gguf(path):
        gguf_file.check(path)
        return path, None
    if local_or_hub.is_local(model):
        raise RequestError(f"{model} is not a model directory: {_no_model(path)}")
    if not hub.looks_like_id(model):
        raise RequestError(f"{model} does not exist: {GIVE}")
    with local_or_hub.searching_hub(model, "model"):
        folder, commit = hub.snapshot(
            model, kind="model", revision=revision, patterns=FILES, local_only=local_only
        )
    if not (folder / "config.json").is_file():
        raise RequestError(
            f"{model} has no config.json: if it holds GGUF files, fetch one (`hf download {model} FILE.gguf --local-dir DIR`) "
            "and give its path"
        )
    return folder, commit


def _no_model(path: Path) -> str:
    """What is at `path` instead of a model, and what to give instead."""
    if not path.is_dir():
        return f"it is a file; {GIVE}"
    if (path / weights.ADAPTER).is_file():
        return "it is an adapter alone; load it with its model, `merge_and_unload()`, save_pretrained to a new directory"
    if (made := local_or_hub.made_by_alens(path)) is not None:
        return f"it is {made}; {GIVE}"
    return f"it has no config.json; {GIVE}"
