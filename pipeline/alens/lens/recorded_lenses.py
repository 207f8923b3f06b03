"""Lenses as their `lens.json` records them: the record, and their files, checked but not loaded.

In: a directory, or a repository of the hub that holds such files (`hf://OWNER/NAME`). Out: `RecordedLenses`: the
`LensRecord`, and paths of files that were compared with it. Needs no torch, so that `alens info` is quick.
"""

from pathlib import Path
from typing import Any

from alens.errors import DamageError, RequestError
from alens.heads import Heads, checked_layers, requested
from alens.lens.directory import LensDirectory
from alens.lens.record import BY_LAYER_FORMAT, FORMAT, UNHASHED_FORMAT, LensRecord
from alens.sources import hub
from alens.store import document, durable, same_model, typed
from alens.store.model_record import ModelRecord
from alens.store.paths import LENS_JSON, StorePaths


class RecordedLenses:
    """Lenses, without their tensors.

    Attributes: `root` (where the files are), `name` (what messages call it), `commit` (the commit of a repository of
    the hub, else None), `record`.
    """

    def __init__(self, root: Path | str) -> None:
        """Open a directory, or `hf://OWNER/NAME[@REVISION]`.

        Raises `RequestError` when it holds no lenses, `DamageError` when it is damaged.
        """
        self._address = hub.address(root)
        self.commit: str | None = None
        self.root = Path(root)
        if self._address is not None:
            self.root, self.commit = self._fetch(LENS_JSON, self._address.revision)
        self.name = str(self._address or root)
        self.record = self._read_record()

    def _fetch(self, name: str, revision: str | None) -> tuple[Path, str]:
        """Fetch one file of a repository into the hub cache; gives its directory and the commit."""
        assert self._address is not None
        return hub.snapshot(
            self._address.repository, kind="model", revision=revision, patterns=[name], asked=self._address
        )

    def _mend(self, name: str) -> str:
        """What to do about a damaged file."""
        if self._address is None:
            return "fit again, or restore it from a copy"
        again = hub.download_command(
            self._address.repository, name, revision=self.commit, more=("--force-download",)
        )
        return f"fetch it again with `{again}`, or ask who published it"

    def _read_record(self) -> LensRecord:
        path, mend = self.root / LENS_JSON, self._mend(LENS_JSON)
        try:
            content = document.content(path, mend)
        except (FileNotFoundError, NotADirectoryError):
            why = f"it has no {LENS_JSON}"
            if StorePaths(self.root).plan.exists():
                why = "it is a cache"
            elif LensDirectory(self.root).holds_fit:
                why = "their fit is not finished: run `alens fit` again to go on"
            raise RequestError(
                f"{self.name} holds no lenses ({why}): "
                "give a directory that `alens fit` finished, or a repository that `alens publish` filled"
            ) from None
        except OSError as error:
            raise RequestError(f"cannot read {path}: {error.strerror}") from None
        body = document.decode_either(
            content,
            str(path),
            mend,
            field="format",
            hashed=(FORMAT, BY_LAYER_FORMAT),
            unhashed=UNHASHED_FORMAT,
            holds="heads, shards and figures",
        )
        return typed.parse(LensRecord, body, str(path), mend)

    def check_layer(self, layer: int) -> None:
        """Raises `RequestError` where the layer was not fitted."""
        if layer not in self.record.layers:
            raise RequestError(
                f"{self.name} has no lens for layer {layer}: it has layers {', '.join(map(str, self.record.layers))}"
            )

    def place(self, layer: int, head: int) -> int:
        """The place of a head on the first axis of its layer. Raises `RequestError` where it was not fitted."""
        self.check_layer(layer)
        fitted = self.record.lenses
        if (layer, head) not in fitted:
            missing, has = f"{layer}.{head}", str(fitted)
            if fitted.shared is not None:
                missing, has = str(head), ", ".join(map(str, fitted.shared))
            raise RequestError(f"{self.name} has no lens for head {missing}: it has heads {has}")
        return fitted.place(layer, head)

    def choose(self, layers: Any, heads: Any) -> Heads:
        """The heads that somebody asks for, each once, by default all that were fitted.

        `layers` is a list of numbers or None; `heads` is as `HeadNames` says, or None. Raises `RequestError` for anything
        else, for what was not fitted and for an empty choice.
        """
        layers = checked_layers(layers)
        for layer in layers or ():
            self.check_layer(layer)
        chosen = requested(layers, heads, self.record.lenses)
        for pair in chosen:
            self.place(*pair)
        return chosen

    def check_model(self, model: ModelRecord, name: str) -> None:
        """Raises `RequestError` unless these are lenses of that model."""
        if (phrase := same_model.difference(self.record.model, model)) is not None:
            raise RequestError(
                f"{self.name} holds lenses of {self.record.model.id}, and {name} has {phrase}: lenses read the model they were fitted on"
            )

    def check_file(self, name: str) -> Path:
        """The path of the file of that name. Raises `DamageError` unless it is as it was written."""
        path, recorded = self.root / name, self.record.files.get(name)
        if self._address is not None and recorded is not None and not path.is_file():
            self._fetch(name, self.commit)
        if recorded is None or not path.is_file():
            raise DamageError(f"{path} is missing: {self._mend(name)}")
        if durable.sha256_of(path) != recorded.get("sha256"):
            raise DamageError(f"{path} was altered since it was written: {self._mend(name)}")
        return path
