"""The plan of a cache: the request, what it resolved to, and its identity.

In: the resolved model, tokenizer, corpus and settings. Out: `plan.json`, whose identity (a SHA-256 of
what determines the stored numbers) is in every commit record, so that shards of different plans
are never mixed. Ids and paths are provenance, not identity: a model that moved is the same model.
"""

import dataclasses
import hashlib
import json
from typing import Annotated, Any, Final, Literal, Self

from annotated_types import Ge, Le, Lt

from alens.errors import DamageError, RequestError
from alens.fields import check
from alens.store import document, typed
from alens.store.model_record import ModelRecord
from alens.store.typed import MOST, STRICT, Bounded, Natural, Vocabulary

FORMAT = 1

ATTN_Z: Final = "attn.z"
"""The site `attn.z`: what each head mixes before W_O, TransformerLens' `hook_z`."""

NUMERICS = 3
"""A version of how numbers are computed, which grows when their last bits or the draws change. It is part of a plan's
identity, so that a cache is not begun by one alens and finished by another that computes differently."""

RESIDUAL_STREAM = "resid_post"
"""The site whose values are the residual stream after a layer: the model's last norm could follow it."""

FURTHER_SITES = (RESIDUAL_STREAM, "mlp_out")
"""Sites that a cache may hold beside `attn.z`, d_model numbers for each row and layer: Logit Lens and Tuned Lens read them."""

FLOAT16_MANTISSA_BITS = 10

ROWS_PER_SHARD, MOMENT_ROWS = 16_384, 65_536
"""Rows of a shard by default, and where it holds sums alone."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class CacheSettings:
    """What a user chooses about a cache. Every field determines the stored numbers; their order is that of `plan.json`."""

    __pydantic_config__ = STRICT

    seq_len: Bounded = 256
    """Tokens per sequence."""
    bos: bool | None = None
    """Begin each sequence with the tokenizer's BOS token, or not. Gemma and Llama 2 expect it. None: as the tokenizer
    does by itself."""
    max_rows: Annotated[int, Ge(1), Le(MOST)] | None = None
    """At most this many rows, spread over the whole text. None: all."""
    layers: tuple[int, ...] | None = None
    """Layers whose heads are cached, such as 0,2,5-7. None: all."""
    top_k: Bounded = 64
    """Most probable next tokens that are stored for each row, with their probabilities."""
    tail_samples: Bounded = 64
    """Tokens drawn for each row from outside the top k, in proportion to their probability."""
    exact_teacher: bool = False
    """Also store the final residual, from which W_U gives the exact output: 2 x d_model bytes per row."""
    moments_only: bool | None = None
    """Store no rows, only sums over each shard, from which a lens of every head can be regressed."""
    rows_per_shard: Bounded = None  # type: ignore[assignment]  # `__post_init__` gives it a number
    """Rows per shard, a multiple of seq_len. A job that is stopped loses the shard it was computing. None: 16384 (with
    --moments-only 65536, or an eighth of --max-rows if that is fewer)."""
    batch_size: Bounded = 16
    """Sequences per forward pass. It is part of the plan, because float sums depend on it."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """The model's dtype."""
    z_dtype: Literal["float16", "int8"] = "float16"
    """The stored dtype of z; int8 has a float16 scale for each row and head."""
    keep_bits: int | None = None
    """Round z (and further sites) to this many of its 10 mantissa bits, and compress it. None: all, uncompressed."""
    sites: tuple[str, ...] | None = None
    """Further sites beside attn.z: resid_post, mlp_out, or both. None: none."""
    final_moments: bool | None = None
    """Sum up z with the final residual in each shard, for lenses without a fit: 2 x d_head x d_model bytes per head and shard.
    None: where that is at most a tenth of the bytes of z."""
    seed: Annotated[int, Ge(0), Lt(2**63)] = 0
    """Seed of the order of sequences, the order of rows in a shard, and the tail samples."""

    @property
    def best_teacher(self) -> str:
        """The kind of teacher to judge by: `exact` where the cache has it, else `compressed`."""
        return "exact" if self.exact_teacher else "compressed"

    def __post_init__(self) -> None:
        object.__setattr__(self, "moments_only", self.moments_only or None)  # absent, as in older plans
        if self.rows_per_shard is None:
            object.__setattr__(self, "rows_per_shard", self._default_rows())
        check(self)
        if self.seq_len < 2:
            raise RequestError("seq_len is 1: position 0 sees only itself, so take at least 2")
        if self.rows_per_shard % self.seq_len:
            nearest = max(1, round(self.rows_per_shard / self.seq_len)) * self.seq_len
            raise RequestError(
                f"rows_per_shard is {self.rows_per_shard}, not a multiple of seq_len {self.seq_len}: take {nearest}, say"
            )
        if self.max_rows is not None and self.max_rows < self.rows_per_shard:
            raise RequestError(
                f"max_rows is {self.max_rows:,}: fewer than one shard of {self.rows_per_shard:,} rows; "
                f"take a smaller --rows-per-shard (a multiple of {self.seq_len})"
            )
        self._check_encoding()

    def _default_rows(self) -> int:
        """Rows of a shard where none are asked for. Sums take the same room for few rows as for many."""
        if not self.moments_only:
            return ROWS_PER_SHARD
        rows = MOMENT_ROWS if self.max_rows is None else min(MOMENT_ROWS, self.max_rows // 8)
        return max(1, max(rows, ROWS_PER_SHARD) // self.seq_len) * self.seq_len

    def _check_encoding(self) -> None:
        if self.keep_bits is not None and not 0 <= self.keep_bits < FLOAT16_MANTISSA_BITS:
            raise RequestError(
                f"keep_bits is {self.keep_bits}: float16 has {FLOAT16_MANTISSA_BITS} mantissa bits, "
                f"keep 0 to {FLOAT16_MANTISSA_BITS - 1} of them, or leave it out to keep all"
            )
        of_rows = {"exact_teacher": False, "z_dtype": "float16", "keep_bits": None, "sites": None}
        asked = [name for name, default in of_rows.items() if getattr(self, name) != default]
        if self.moments_only and asked:
            raise RequestError(f"{asked[0]} is about rows, and moments_only stores none: choose one")
        if self.keep_bits is not None and self.z_dtype == "int8":
            raise RequestError("keep_bits rounds float16, and z_dtype is int8: choose one of the two")
        if self.sites is not None:
            unknown = [site for site in self.sites if site not in FURTHER_SITES]
            if unknown or not self.sites or len(set(self.sites)) != len(self.sites):
                raise RequestError(
                    f"sites is {','.join(self.sites) or 'empty'}: name {' or '.join(FURTHER_SITES)}, each once ({ATTN_Z} is always cached)"
                )

    @property
    def text_len(self) -> int:
        """Tokens of text in each sequence: one fewer where it begins with BOS."""
        return self.seq_len - bool(self.bos)

    @property
    def sequences_per_shard(self) -> int:
        return self.rows_per_shard // self.seq_len

    @property
    def sequences_wanted(self) -> int | None:
        """As many as `max_rows` allows; None for all."""
        return None if self.max_rows is None else self.max_rows // self.seq_len


@dataclasses.dataclass(frozen=True, kw_only=True)
class CorpusFile:
    """One file of the text."""

    __pydantic_config__ = STRICT

    name: str
    bytes: Natural
    sha256: str | None
    """None only in a request: the files of a plan are hashed."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class CorpusRecord:
    """The text: which files it has, and how they are read."""

    __pydantic_config__ = STRICT

    id: str
    """As the user named it: `bookcorpus`, a hub id, a file or directory, or `demo`."""
    revision: str | None
    """The commit that a hub id resolved to."""
    split: str
    text_column: str
    document_column: str | None
    row_documents: bool
    files: tuple[CorpusFile, ...]
    configuration: str | None = None
    """The configuration of a data set that was asked for. None: none was named."""

    @property
    def knows_documents(self) -> bool:
        """Whether the text says where a document begins."""
        return self.row_documents or self.document_column is not None


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokensRecord:
    """What `tokens.npy` holds: the packed sequences, in the order in which the model runs them."""

    __pydantic_config__ = STRICT

    sha256: str
    sequences: Vocabulary
    """How many sequences are kept: they fill whole shards."""
    sequences_left_out: Natural
    """Whole sequences that did not fill a shard, at the end of the text, or where documents are held out at the end of
    the training and of the held-out text; 0 where max_rows cut the text."""
    tokenizer_sha256: str
    end_of_text: Natural | None
    """The token between documents."""
    bos: Natural | None = None
    """The token at position 0 of each sequence, before its text. None: the text begins there. In a plan, `settings.bos`
    is true where there is one, and None otherwise."""
    documents_sha256: str | None = None
    """The hash of `documents.npy`, which has the document of each token. None: documents are not known."""
    documents: Natural | None = None
    """How many documents the text has. None: they are not known."""
    documents_taken: Natural | None = None
    """How many documents have at least one token in `tokens.npy`."""
    documents_held_out: Natural | None = None
    """How many of these documents are held out: the last shards consist of them, and no other shard has one."""
    held_out_sequences: Natural | None = None
    """How many of the last sequences belong to held-out documents: whole shards. 0: no document could be spared. None:
    documents are not known."""
    selection: str | None = None
    """`spread` where `max_rows` took sequences from the whole text. None: all of the text was taken, or an older alens
    made the cache, whose `max_rows` took the first sequences."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """What a cache will be, before its first row is computed. Immutable once written."""

    __pydantic_config__ = STRICT

    model: ModelRecord
    corpus: CorpusRecord
    settings: CacheSettings
    tokens: TokensRecord
    numerics: int | None = NUMERICS
    """`NUMERICS` of the alens that made the plan. None: the plan is older than this field."""
    target_logits: Literal["float32"] | None = None
    """The dtype of the logits that targets are made from. None: the model's; in 16 bits they were rounded by an older alens."""
    created: dict[str, str] = dataclasses.field(default_factory=dict)
    """Versions and host of the job that made the plan: provenance, not identity."""

    @property
    def rows(self) -> int:
        return self.tokens.sequences * self.settings.seq_len

    @property
    def num_shards(self) -> int:
        return self.tokens.sequences // self.settings.sequences_per_shard

    @property
    def shards_of_held_out_documents(self) -> range:
        """The last shards, whose documents are in no other shard; empty where documents are not known."""
        held_out = (self.tokens.held_out_sequences or 0) // self.settings.sequences_per_shard
        return range(self.num_shards - held_out, self.num_shards)

    @property
    def layers(self) -> tuple[int, ...]:
        """The cached layers, resolved."""
        return self.settings.layers if self.settings.layers is not None else self.model.layers_with_heads

    @property
    def identity(self) -> str:
        """SHA-256 of everything that determines the stored numbers."""
        text = json.dumps(self._determining(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def _determining(self) -> dict[str, Any]:
        """All of the plan except ids, places and software. A field that is None counts as absent, so that a setting that a
        later version adds leaves the identity of older plans as it is."""
        whole = dataclasses.asdict(self)
        del whole["created"], whole["model"]["id"], whole["model"]["revision"], whole["model"]["probe"]
        if self.model.config is not None:  # as text, because null is a value in it
            whole["model"]["config"] = json.dumps(self.model.config, sort_keys=True)
        del whole["corpus"]["id"], whole["corpus"]["revision"]
        for file in whole["corpus"]["files"]:
            del file["name"]
        return {"format": FORMAT, **_without_none(whole)}

    def _wrong(self) -> str | None:
        """How the parts of the plan contradict each other. None: they do not."""
        layers, model, tokens = self.layers, self.model, self.tokens
        if not layers or len(set(layers)) < len(layers) or min(layers) < 0 or max(layers) >= model.n_layers:
            return f"layers are {','.join(map(str, layers))}, of a model with {model.n_layers}"
        if self.settings.top_k > model.d_vocab:
            return f"top_k is {self.settings.top_k}, of {model.d_vocab} tokens"
        if tokens.end_of_text is not None and tokens.end_of_text >= model.d_vocab:
            return f"end_of_text is {tokens.end_of_text}, of {model.d_vocab} tokens"
        if (tokens.bos or 0) >= model.d_vocab:
            return f"bos is {tokens.bos}, of {model.d_vocab} tokens"
        if (tokens.bos is not None) != bool(self.settings.bos):
            return f"settings.bos is {self.settings.bos}, and tokens.bos {tokens.bos}"
        if tokens.sequences % self.settings.sequences_per_shard:
            return f"{tokens.sequences} sequences are not whole shards"
        return None

    def to_json(self) -> bytes:
        return document.encode({"format": FORMAT, "identity": self.identity, **dataclasses.asdict(self)})

    @classmethod
    def from_json(cls, content: bytes, where: str) -> Self:
        """The plan in `content`; `where` names the file in errors.

        Raises `DamageError` when a byte of it was altered, `RequestError` for another format.
        """
        body = document.decode(content, where)
        try:
            given, identity = body.pop("format"), body.pop("identity")
        except KeyError as error:
            raise DamageError(f"{where} is not whole (it lacks {error}): {document.MEND}") from None
        if type(given) is not int or given != FORMAT:
            raise RequestError(
                f"{where} has format {given!r}; this alens reads format {FORMAT}: use the alens that wrote it"
            )
        plan = typed.parse(cls, {"numerics": None, **body}, where, document.MEND)
        if (what := plan._wrong()) is not None:
            raise DamageError(f"{where} is not whole ({what}): {document.MEND}")
        if plan.identity != identity:
            raise DamageError(f"{where} was altered (its contents do not give its identity): {document.MEND}")
        return plan


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(part) for key, part in value.items() if part is not None}
    return [_without_none(part) for part in value] if isinstance(value, (list, tuple)) else value
