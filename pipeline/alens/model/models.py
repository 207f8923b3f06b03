"""Finds a model by its name, hashes its weights, and loads it through TransformerLens, frozen.

In: `demo`, a Hugging Face directory, a GGUF file, or a hub id. Out: a `ModelSource` (directory and record, nothing loaded), and from
it a `LoadedModel`: the bridge, its unembedding and its tokenizer. Weights come from safetensors or GGUF only, and no code of
the model's repository is run.
Shapes: L layers, H heads, E d_head, D d_model, V vocabulary.
"""

import dataclasses
import hashlib
import logging
from pathlib import Path
from typing import Any

import torch

from alens.errors import RequestError
from alens.job.progress import Progress, Report, silent
from alens.machine.device import torch_device
from alens.model import bridge as bridges
from alens.model import configuration, gguf_file, logit_fingerprint, model_path, pretrained, weights
from alens.model.beginning import beginning
from alens.model.behind_attention import behind_attention, fold
from alens.model.last_norm import last_norm
from alens.model.libraries import importing, panics_unprinted, quiet, refusing
from alens.model.loaded_model import LoadedModel as LoadedModel
from alens.model.loaded_model import ModelSource as ModelSource
from alens.model.output_logits import OutputLogits, output_logits
from alens.sources import hub
from alens.sources.lfs import check_fetched
from alens.store import same_model
from alens.store.model_record import ModelRecord

log = logging.getLogger("alens")

NOT_HASHED = "not hashed"
"""The hash in a record that nobody compares."""

PROBE = "A text, 1 word: \u00e9"
"""A text that a tokenizer must be able to encode: some faults of tokenizers show only then."""

TOKENIZER_FILES = ("tokenizer.json", "vocab.json", "merges.txt", "tokenizer.model", "vocab.txt")


def find(
    model: str,
    revision: str | None = None,
    *,
    local_only: bool = False,
    report: Report = silent,
    hash_weights: bool = True,
) -> ModelSource:
    """Resolve MODEL to a directory or a GGUF file and make its record; hashes the weights, loads nothing.

    Without `hash_weights`, which is for records that nobody compares, their hash is `NOT_HASHED`. With `local_only`, a
    hub id is looked up in the hub cache only. Raises `RequestError` unless it is a model.
    """
    folder, commit = model_path.locate(model, revision, local_only)
    config = configuration.read(folder)
    with refusing(f"{configuration.file(folder)} is not a model configuration"), quiet():
        settings = configuration.canonical(config)
    loaded = weights.files(folder, config)
    lacking = [path.name for path in loaded if not path.is_file()]
    if lacking and commit is not None:
        hub.snapshot(model, kind="model", revision=commit, patterns=lacking, local_only=local_only)
    tokenizer_sha256 = _tokenizer_sha256(folder)
    record = ModelRecord(
        id=model if commit is not None or model == "demo" else str(folder.resolve()),
        revision=commit,
        weights_sha256=weights.sha256(loaded, report) if hash_weights else NOT_HASHED,
        architecture=config.architectures[0],
        config=settings,
        **configuration.sizes(config, folder),
    )
    return ModelSource(folder=folder, record=record, tokenizer_sha256=tokenizer_sha256)


def find_again(
    record: ModelRecord,
    made: Path | str,
    *,
    model: str | None = None,
    local_only: bool = False,
    report: Report = silent,
) -> ModelSource:
    """Find the model that `made`, a cache or lenses, was made with; `record` is the model's record in it.

    It is looked for where the record says, at its revision, or at `model` where this is given. Raises `RequestError`
    when it is not there, or has other weights.
    """
    name = model or record.id
    try:
        source = find(name, None if model else record.revision, local_only=local_only, report=report)
    except RequestError as error:
        hint = "" if model else f"; {made} was made with it: say with --model where it is now"
        raise RequestError(f"{error}{hint}") from None
    if record.revision is not None and source.record.revision is None and model is None:
        log.warning(
            f"taking the directory {source.folder.resolve()} for the model {record.id} that {made} was made with"
        )
    source = known_as(source, record, made, local_only=local_only)
    if (phrase := same_model.difference(record, source.record)) is not None:
        at = f" at {record.revision}" if record.revision else ""
        raise RequestError(
            f"{name} has {phrase} than the model of {made} ({record.id}{at}): say with --model where that is"
        )
    return source


def known_as(
    source: ModelSource, record: ModelRecord, made: Path | str, *, local_only: bool = False
) -> ModelSource:
    """`source`, known as the model that `made` was made with, which `record` describes: loading it compares the two.

    Old records have the hash of all safetensors files in the folder. Where the files give this hash, it is taken.
    """
    own, weights_sha256 = source.record, source.record.weights_sha256
    if record.config is None and weights_sha256 != record.weights_sha256 and source.folder.is_dir():
        if own.revision is not None:
            patterns = [*model_path.FILES, "*.safetensors"]
            hub.snapshot(
                own.id, kind="model", revision=own.revision, patterns=patterns, local_only=local_only
            )
        loaded = weights.files(source.folder, configuration.read(source.folder))
        if weights.old_sha256(source.folder, loaded) == record.weights_sha256:
            weights_sha256 = record.weights_sha256
    known = dataclasses.replace(own, weights_sha256=weights_sha256)
    return dataclasses.replace(source, record=known, known=record, known_by=str(made))


def _tokenizer_sha256(folder: Path) -> str:
    """A hash over the files of the tokenizer. Raises `RequestError` where there are none."""
    if gguf_file.is_gguf(folder):
        return gguf_file.tokenizer_sha256(folder)
    files = [folder / name for name in TOKENIZER_FILES if (folder / name).is_file()]
    if not files:
        raise RequestError(f"{folder} has no tokenizer ({', '.join(TOKENIZER_FILES)}): save one there")
    digest = hashlib.sha256()
    for file in files:
        check_fetched(file)
        digest.update(f"{file.name}\n".encode() + file.read_bytes())
    return digest.hexdigest()


def load_tokenizer(source: ModelSource) -> tuple[Any, int | None]:
    """The `tokenizers` tokenizer of a model, and its end-of-text token. Raises `RequestError`."""
    fast = _fast_tokenizer(source)
    return fast.backend_tokenizer, fast.eos_token_id


def _fast_tokenizer(source: ModelSource) -> Any:
    """The tokenizer as transformers loads it. Raises `RequestError`."""
    with importing():
        from transformers import AutoTokenizer

    with (
        refusing(f"cannot load the tokenizer in {source.folder}"),
        quiet(),
        panics_unprinted(),
        gguf_file.named(source.folder) as where,
    ):
        fast = AutoTokenizer.from_pretrained(**where, local_files_only=True, trust_remote_code=False)
        tokenizer = fast.backend_tokenizer
        tokenizer.no_truncation()
        tokenizer.no_padding()
        tokenizer.encode(PROBE)
    return fast


def _bridge_logits(bridge: Any, model: Any, record: ModelRecord) -> torch.Tensor:
    """The fingerprint's logits of TransformerLens. Keys and values are kept where it needs them, as for OLMo in bfloat16."""
    try:
        return logit_fingerprint.logits(bridge, record)
    except RuntimeError:
        model.config.use_cache = True
        return logit_fingerprint.logits(bridge, record)


@importing()  # the code of an architecture is imported while its model is made
def load(source: ModelSource, *, dtype: str, device: str, report: Report = silent) -> LoadedModel:
    """Load the model, frozen, on `device` (`cpu`, `cuda`, `cuda:1`). Raises `RequestError`."""
    report(Progress(stage="loading the model"))
    where = torch_device(device)
    fast = _fast_tokenizer(source)
    record = source.record
    what = f"cannot run {record.architecture} from {source.folder}"
    with quiet():
        model = pretrained.load(source.folder, getattr(torch, dtype))
        with refusing(what):
            logits_TV = logit_fingerprint.logits(model.to(where), record)
        bridge = bridges.boot(model, source.folder, record, getattr(torch, dtype), where, fast)
        W_O_LHED = bridges.output_weights(bridge, record)
        W_U_DV, b_U_V = bridges.unembedding(bridge, record)
        with refusing(f"TransformerLens {what}"):
            logit_fingerprint.check_same(logits_TV, _bridge_logits(bridge, model, record), record, dtype)
            logits = (
                output_logits(bridge, model.config, record) or OutputLogits()
            )  # what else it may be is refused later
        source = _probed(source, logit_fingerprint.record(logits_TV, record, dtype))
    norm, behind = last_norm(bridge, record.d_model), behind_attention(bridge, record.d_model, where)
    W_O_LHED, b_O_LD = fold(W_O_LHED, bridges.output_biases(bridge, W_O_LHED), behind)
    return LoadedModel(
        source=source,
        bridge=bridge.requires_grad_(False),
        tokenizer=fast.backend_tokenizer,
        fast_tokenizer=fast,
        end_of_text=fast.eos_token_id,
        beginning=beginning(fast, PROBE),
        W_O_LHED=W_O_LHED,
        b_O_LD=b_O_LD,
        behind=behind,
        W_U_DV=W_U_DV if logits.scale == 1.0 else W_U_DV * logits.scale,
        b_U_V=b_U_V if logits.scale == 1.0 else b_U_V * logits.scale,
        logit_scale=logits.scale,
        logit_cap=logits.cap,
        final_norm=None if norm is None else norm.to(where),
        device=where,
    )


def _probed(source: ModelSource, probed: dict[str, Any] | None) -> ModelSource:
    """`source` with the probe in its record. Raises `RequestError` when the model it is known as computes otherwise."""
    record = dataclasses.replace(source.record, probe=probed)
    if source.known is not None:
        if (phrase := same_model.difference(source.known, record)) is not None:
            raise RequestError(
                f"{source.folder} has {phrase} than the model of {source.known_by}: another version of transformers or "
                "TransformerLens may compute another function; use those that it was made with"
            )
        if (lacking := same_model.unchecked(source.known, record)) is not None:
            log.warning(f"{source.known_by} was made by an earlier alens from {source.known.id}: {lacking}")
    return dataclasses.replace(source, record=record)
