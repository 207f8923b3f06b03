"""A prompt -> what each head says about it: the top tokens by its lens, beside those of the unembedding.

In: lenses, the model they were fitted on, a prompt. Out: a `Reading`: for each position, layer and head
two ranked lists of tokens, and the model's own list (Fig. 1 and section 3 of "Attention Lens", arXiv
2310.16270, compare the same two).
Shapes: T tokens, H heads, E d_head, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from alens.cache import activations
from alens.cache import model as models
from alens.errors import RequestError
from alens.lens.saved import Lenses
from alens.store.schema import ATTN_Z

RESIDUAL_STREAM = "resid_post"
"""The site that the model's last norm could follow."""


@dataclass(frozen=True, kw_only=True)
class TokenScore:
    """One entry of a ranked list."""

    token: str
    id: int
    probability: float
    lift: float | None
    """Probability over the token's share of the model's mean output: above 1, the head raises it. None where the
    lenses, from elsewhere, do not say the mean output."""


@dataclass(frozen=True, kw_only=True)
class HeadReading:
    """What one head says at one position."""

    position: int
    layer: int
    head: int
    lens: list[TokenScore]
    unembedding: list[TokenScore]


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What heads say about a prompt."""

    prompt: str
    tokens: list[str]
    positions: list[int]
    before: dict[int, str]
    """By position: the prompt up to and with its token. A character may take several tokens."""
    model: dict[int, list[TokenScore]]
    """By position: the model's own next-token list."""
    heads: list[HeadReading]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


class HeadReader:
    """Lenses with their model loaded, to read any number of prompts."""

    def __init__(self, lenses: Lenses, *, model: str | None = None, device: str = "auto") -> None:
        """`model` says where the model is when it is not where the lenses say.

        Raises `RequestError` when it cannot be had, or is another model than the lenses'.
        """
        record = lenses.record.model
        name = model or record.id
        try:
            source = models.find(name, None if model else record.revision)
        except RequestError as error:
            hint = "" if model else f"; {lenses.root} were fitted on it: say with --model where it is now"
            raise RequestError(f"{error}{hint}") from None
        lenses.check_model(source.record.weights_sha256, name)
        self.lenses = lenses
        self.subject = models.load(source, dtype="float32", device=device)
        mean_V = lenses.log_mean_output()
        self._log_mean_V = None if mean_V is None else mean_V.to(self.subject.device)

    def read(
        self,
        prompt: str,
        *,
        layers: Sequence[int] | None = None,
        heads: Sequence[int] | None = None,
        positions: Sequence[int] | None = None,
        top: int = 10,
    ) -> Reading:
        """Read a prompt at `positions` (negative from the end; default the last), `top` tokens a list.

        Raises `RequestError` for an empty or too long prompt, or what does not exist in model or lenses.
        """
        record = self.lenses.record
        layers = list(record.layers if layers is None else layers)
        heads = list(record.heads if heads is None else heads)
        indices = [self.lenses.head_index(head) for head in heads]
        fitted = {layer: self.lenses.layer(layer) for layer in layers}
        if not 1 <= top <= record.model.d_vocab:
            raise RequestError(f"top is {top}: it must be in 1 .. {record.model.d_vocab}")
        ids = self.tokens(prompt)
        places = self._positions(positions, len(ids))
        subject = self.subject
        with torch.inference_mode():
            sites = () if record.site == ATTN_Z else (record.site,)
            found = activations.run(subject, torch.tensor([ids]), layers, sites)
            logits_TV = (found.final_BTD[0] @ subject.W_U_DV + subject.b_U_V).float()
            readings = []
            for layer in layers:
                lens = fitted[layer]
                values_THE = (
                    found.sites_BTD[record.site, layer][0][:, None] if sites else found.z_BTHE[layer][0]
                )
                z_HTE = values_THE[places][:, heads].float().transpose(0, 1)
                maps = lens.maps.select(indices).to(subject.device)
                lens_HTV = torch.stack([maps.logits(h, z_TE) for h, z_TE in enumerate(z_HTE)])
                plain_HTV = self._plain(z_HTE, layer, heads)
                readings += [
                    HeadReading(
                        position=position,
                        layer=layer,
                        head=head,
                        lens=self._top(lens_HTV[h, t], top),
                        unembedding=self._top(plain_HTV[h, t], top),
                    )
                    for t, position in enumerate(places)
                    for h, head in enumerate(heads)
                ]
        return Reading(
            prompt=prompt,
            tokens=[self._text(token) for token in ids],
            positions=places,
            before={position: self._text(*ids[: position + 1]) for position in places},
            model={position: self._top(logits_TV[position], top) for position in places},
            heads=sorted(readings, key=lambda r: (r.position, r.layer, r.head)),
        )

    def _plain(self, z_HTE: torch.Tensor, layer: int, heads: Sequence[int]) -> torch.Tensor:
        """(H, T, V) what the model's unembedding says of the same values: the Logit Lens."""
        subject, site = self.subject, self.lenses.record.site
        if site == ATTN_Z:
            z_HTE = z_HTE @ subject.W_O_LHED[layer, heads].float()
        elif site == RESIDUAL_STREAM:
            z_HTE = subject.bridge.ln_final(z_HTE)
        return z_HTE @ subject.W_U_DV.float() + subject.b_U_V.float()

    def tokens(self, prompt: str) -> list[int]:
        """The token ids of a prompt. Raises `RequestError` when it is empty or too long."""
        try:
            prompt.encode()
        except UnicodeEncodeError:
            raise RequestError(f"the prompt {prompt!r} is not UTF-8 text") from None
        ids: list[int] = self.subject.tokenizer.encode(prompt, add_special_tokens=False).ids
        longest = self.lenses.record.model.n_ctx
        if not ids:
            raise RequestError("the prompt is empty: give some text")
        if len(ids) > longest:
            raise RequestError(
                f"the prompt has {len(ids)} tokens: {self.lenses.record.model.id} sees {longest} at most; shorten it"
            )
        return ids

    def _positions(self, positions: Sequence[int] | None, num_tokens: int) -> list[int]:
        found = []
        for position in [-1] if positions is None else positions:
            if not -num_tokens <= position < num_tokens:
                raise RequestError(
                    f"position {position} does not exist: the prompt has {num_tokens} tokens, 0 to {num_tokens - 1}"
                )
            found.append(position % num_tokens)
        return found

    def _top(self, logits_V: torch.Tensor, top: int) -> list[TokenScore]:
        log_probs_V = logits_V.log_softmax(dim=-1)
        best = log_probs_V.topk(top)
        mean_V = self._log_mean_V
        lift = [None] * top if mean_V is None else (best.values - mean_V[best.indices]).exp().tolist()
        return [
            TokenScore(token=self._text(token), id=token, probability=probability, lift=ratio)
            for token, probability, ratio in zip(
                best.indices.tolist(), best.values.exp().tolist(), lift, strict=True
            )
        ]

    def _text(self, *tokens: int) -> str:
        text: str = self.subject.tokenizer.decode(list(tokens), skip_special_tokens=False)
        return text
