"""Lenses with their model loaded: every reading of a prompt starts here.

In: an opened lens directory, and the place of its model. Out: a `LensedModel`, which gives the tokens of a prompt, what
the heads compute on it, and log-probabilities over the vocabulary by the lens, by the unembedding and by the model.
Shapes: B sequences, T tokens, H heads, E width of the site's values (d_head for z), V vocabulary.
"""

import dataclasses
import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from alens.errors import RequestError
from alens.heads import Heads
from alens.job.progress import Report, silent
from alens.lens.effect_lenses import EffectLenses
from alens.lens.lenses import Lenses, opened_lenses
from alens.lens.maps import LensMaps
from alens.lens.unembedded_maps import UnembeddedMaps
from alens.machine.products import soft_capped
from alens.model import logit_fingerprint, models
from alens.model.activations import Activations
from alens.model.activations import run as run_model
from alens.model.examine import head_write
from alens.model.within_text import WithinText
from alens.reading.head_writes import HeadWrites
from alens.rows.row_scales import RowScales
from alens.statistics.divergences import kl_of_log_probs
from alens.store.model_record import OTHER_NORM, ModelRecord, NormRecord
from alens.store.schema import ATTN_Z, RESIDUAL_STREAM
from alens.text.text_tokens import check_ids

log = logging.getLogger("alens")

FOLDED_BYTES = 2**32
"""The most memory for lenses that are folded because many prompts are read: 341 heads at V = 49,152 and d_head 64."""


class LensedModel:
    """Lenses and the model they were fitted on.

    Attributes: `lenses`; `model`; `log_mean_V`, the log of the mean output, (V,) float32, or None where the lenses do not
    hold it; `no_unembedding`, the reason why what the lenses read cannot be unembedded, or None; `writes`, what the heads
    write; `effect`, effect lenses of the same model, or None.
    """

    def __init__(
        self,
        lenses: Lenses | Path | str,
        *,
        model: str | None = None,
        store: Path | str | None = None,
        effect: EffectLenses | None = None,
        device: str = "auto",
        report: Report = silent,
    ) -> None:
        """`lenses` are open, or the directory or `hf://OWNER/NAME` to open. `model` names the place of the model where it
        is not the one that the lenses name, `store` the cache of the fit where the lenses do not hold the mean z of their
        heads, from which what these write is counted; `effect` are effect lenses, to read what heads add to the logits,
        all in all.

        Raises `RequestError` when there is no model, it or its tokenizer is not the one of the lenses, or `store` or
        `effect` are of another model.
        """
        lenses = opened_lenses(lenses)
        if effect is not None:
            effect.check_model(lenses.record.model, lenses.name)
            if lenses.record.site != ATTN_Z:
                raise RequestError(
                    f"{effect.name} reads z of heads, and {lenses.name} holds lenses of {lenses.record.site}: leave it out"
                )
        source = models.find_again(lenses.record.model, lenses.name, model=model, report=report)
        _check_tokenizer(lenses, source)
        self.lenses = lenses
        self.model = models.load(source, dtype="float32", device=device, report=report)
        for opened in (lenses, effect):
            if opened is not None:
                opened.tie(self.model.output_matrices(opened.record.model))
        self.effect = effect
        self._folded: dict[tuple[int, tuple[int, ...]], LensMaps] = {}
        self._folded_bytes = 0
        self._rows_read: Counter[tuple[int, tuple[int, ...]]] = Counter()
        self._within = WithinText(self.model.tokenizer)
        mean_V = lenses.log_mean_output()
        self.log_mean_V = None if mean_V is None else mean_V.to(self.model.device)
        self.no_unembedding = self._no_unembedding()
        if self.no_unembedding is not None:
            log.warning("%s: their unembedding and what they write are left out", self.no_unembedding)
        self.writes = HeadWrites(lenses, self.model, no_unembedding=self.no_unembedding, store=store)

    def _no_unembedding(self) -> str | None:
        """Why the values that these lenses read cannot be unembedded; None where they can."""
        site, norm = self.lenses.record.site, self.model.final_norm
        if site == RESIDUAL_STREAM:
            return None
        record = self.lenses.record.model if site == ATTN_Z else self.model.source.record
        if site == ATTN_Z and record.head_write is None:  # lenses made before alens looked
            record = dataclasses.replace(record, head_write=self._head_write(record))
        seen = NormRecord(kind=OTHER_NORM, epsilon=0.0) if norm is None else norm.record
        return dataclasses.replace(record, final_norm=seen).no_write

    def _head_write(self, record: ModelRecord) -> str:
        with torch.inference_mode():
            return head_write(
                self.model, torch.tensor([logit_fingerprint.tokens(record)]), self.lenses.record.layers
            )

    # Tokens

    def tokens(self, prompt: str) -> list[int]:
        """The token ids of a prompt, after BOS where the lenses were fitted on sequences that begin with it.

        A prompt that itself begins with BOS gets no second one. Raises `RequestError` for one that is empty, too long or
        not UTF-8.
        """
        try:
            prompt.encode()
        except UnicodeEncodeError:
            raise RequestError(f"the prompt {prompt!r} is not UTF-8 text") from None
        ids: list[int] = self.model.tokenizer.encode(prompt, add_special_tokens=False).ids
        longest = self.lenses.record.model.n_ctx
        if not ids:
            raise RequestError("the prompt is empty: give some text")
        check_ids(ids, self.model.tokenizer, self.lenses.record.model.d_vocab, f"the prompt {prompt!r}")
        bos = self.lenses.record.bos
        if bos is not None and ids[0] != bos:
            ids = [bos, *ids]
        if len(ids) > longest:
            raise RequestError(
                f"the prompt has {len(ids)} tokens: {self.lenses.record.model.id} sees {longest} at most; shorten it"
            )
        return ids

    def text(self, *ids: int) -> str:
        """The text of tokens as they stand within a text: ` king` with its space. Special tokens have theirs too."""
        return self._within.text(ids)

    def prompt_text(self, ids: Sequence[int]) -> str:
        """The text of the first tokens of a prompt, special ones too."""
        text: str = self.model.tokenizer.decode(list(ids), skip_special_tokens=False)
        return text

    def fitted_places(self, num_tokens: int) -> list[int]:
        """The positions of a prompt that lenses are fitted on; the last one where the prompt is too short for any."""
        first = int(self.lenses.record.fit.get("min_position", 0))
        return list(range(min(first, num_tokens - 1), num_tokens))

    # Heads

    def chosen(self, layers: Any, heads: Any) -> Heads:
        """The heads to read; all where none are named. Raises `RequestError` like `Lenses.chosen`."""
        return self.lenses.chosen(layers, heads)

    def run(self, ids: Sequence[int], layers: Sequence[int]) -> Activations:
        """One forward pass over one prompt."""
        site = self.lenses.record.site
        with torch.inference_mode():
            return run_model(self.model, torch.tensor([list(ids)]), layers, () if site == ATTN_Z else (site,))

    def values(self, activations: Activations, layer: int, heads: Sequence[int]) -> torch.Tensor:
        """(H, T, E) float32: what the lenses of a layer read on one prompt."""
        site = self.lenses.record.site
        if site == ATTN_Z:
            return activations.z_BTHE[layer][0][:, list(heads)].float().transpose(0, 1)
        return activations.sites_BTD[site, layer][0].float()[None]

    # Log-probabilities

    def lens(self, layer: int, heads: Sequence[int], values_HTE: torch.Tensor) -> torch.Tensor:
        """(H, T, V) log-probabilities by the lenses of `heads`."""
        with torch.inference_mode():
            return self.lens_logits(layer, heads, values_HTE).log_softmax(-1)

    def lens_logits(
        self, layer: int, heads: Sequence[int], values_HTE: torch.Tensor, tokens: Sequence[int] | None = None
    ) -> torch.Tensor:
        """(H, T, V) logits by the lenses of `heads`; (H, T, C) for `tokens` alone."""
        places = tuple(self.lenses.place(layer, head) for head in heads)
        if tokens is None:
            self._count(layer, places, values_HTE)
        maps = self._maps(layer, places)
        maps = maps if tokens is None else maps.columns(tokens)
        with torch.inference_mode():
            return torch.stack([maps.logits(h, z_TE) for h, z_TE in enumerate(values_HTE)])

    def _maps(self, layer: int, places: tuple[int, ...]) -> LensMaps:
        """The maps of these heads on the device, folded if they were."""
        if (layer, places) in self._folded:
            return self._folded[layer, places]
        maps = self.lenses.layer(layer).maps
        if places != tuple(range(maps.num_heads)):  # selecting copies
            maps = maps.select(places)
        return maps.to(self.model.device)

    def _count(self, layer: int, places: tuple[int, ...], values_HTE: torch.Tensor) -> None:
        """Fold the maps of these heads and keep them, once more rows were read in earlier calls and this one than folding
        costs. A single call has no use for it: it makes the weight of each head once anyway."""
        maps, before = self._maps(layer, places), self._rows_read[layer, places]
        _, rows, width = values_HTE.shape
        self._rows_read[layer, places] += rows
        weight_bytes = 4 * len(places) * width * self.lenses.record.model.d_vocab
        many = before > 0 and before + rows > width and isinstance(maps, UnembeddedMaps)
        if many and self._folded_bytes + weight_bytes <= FOLDED_BYTES:
            self._folded_bytes += weight_bytes
            self._folded[layer, places] = maps.folded()

    def scale(self, activations: Activations) -> RowScales:
        """What norms divide by at the T positions of one prompt; ones where alens does not know the last norm."""
        if activations.scale_BT is None:
            final_BTD = activations.final_BTD
            return RowScales(torch.ones(final_BTD.shape[1], device=final_BTD.device))
        behind = {layer: scale_BT[0] for layer, scale_BT in activations.write_scale_BT.items()}
        return RowScales(activations.scale_BT[0], behind)

    def unembedding(
        self, layer: int, heads: Sequence[int], values_HTE: torch.Tensor, scale_T: RowScales
    ) -> torch.Tensor:
        """(H, T, V) log-probabilities by the model's unembedding of the same values, behind its last norm.

        Raises `RequestError` like `unembedding_logits`.
        """
        with torch.inference_mode():
            return self.unembedding_logits(layer, heads, values_HTE, scale_T).log_softmax(-1)

    def unembedding_logits(
        self,
        layer: int,
        heads: Sequence[int],
        values_HTE: torch.Tensor,
        scale_T: RowScales,
        tokens: Sequence[int] | None = None,
    ) -> torch.Tensor:
        """(H, T, V) logits by the model's unembedding; (H, T, C) for `tokens` alone.

        The residual stream goes through the last norm: the Logit Lens. What a head or an MLP writes is a part of the
        stream, so it is divided by what the norm divides the whole stream by, and what a head writes also by what the norm
        behind its attention divides by: `scale_T`, which `scale` gives.
        Raises `RequestError` where there is no unembedding, with the reason in `no_unembedding`.
        """
        if self.no_unembedding is not None:
            raise RequestError(f"{self.no_unembedding}: it cannot be unembedded")
        model, site, norm = self.model, self.lenses.record.site, self.model.final_norm
        with torch.inference_mode():
            if site == RESIDUAL_STREAM:
                final_HTD = model.bridge.ln_final(values_HTE)
            else:
                assert norm is not None  # else no_unembedding says so
                W_O_HED = model.W_O_LHED[layer, list(heads)].float() if site == ATTN_Z else None
                written_HTD = values_HTE if W_O_HED is None else values_HTE @ W_O_HED
                at_row_T = scale_T.write(layer) if site == ATTN_Z else scale_T.final_N
                final_HTD = norm.part(written_HTD, at_row_T)
            W_U_DV, b_U_V = model.W_U_DV, model.b_U_V
            if tokens is not None:
                W_U_DV, b_U_V = W_U_DV[:, list(tokens)], b_U_V[list(tokens)]
            logits_HTV: torch.Tensor = final_HTD @ W_U_DV.float() + b_U_V.float()
            # What a head writes is counted before the cap, where the parts of the stream add up.
            return soft_capped(logits_HTV, model.logit_cap) if site == RESIDUAL_STREAM else logits_HTV

    def model_log_probs(self, activations: Activations) -> torch.Tensor:
        """(T, V) log-probabilities of the model's own next token on one prompt."""
        return self.log_probs(activations.final_BTD)[0]

    def mean_output_kl(self, model_TV: torch.Tensor) -> torch.Tensor | None:
        """(T,) KL(model, mean output) in nats at each position of `model_TV`, the model's log-probabilities.

        This is the KL of a reading that ignores its input. None where the lenses lack the mean output.
        """
        if self.log_mean_V is None:
            return None
        return kl_of_log_probs(model_TV, self.log_mean_V.log_softmax(-1).expand(1, *model_TV.shape))[0]

    def log_probs(self, final_BTD: torch.Tensor) -> torch.Tensor:
        """(B, T, V) log-probabilities from final residuals, those after the last norm."""
        with torch.inference_mode():
            return self.model.logits(final_BTD).log_softmax(-1)


def _check_tokenizer(lenses: Lenses, source: models.ModelSource) -> None:
    """With another tokenizer the same ids would be other words, in the prompt and in every list."""
    known = lenses.record.tokenizer_sha256
    if known is None:
        log.warning(
            f"{lenses.name} was made by an earlier alens: its tokenizer was not recorded then, so whether that of "
            f"{source.folder} is the same cannot be checked"
        )
    elif known != source.tokenizer_sha256:
        raise RequestError(
            f"{source.folder} has another tokenizer than {lenses.name} was fitted with: its tokens are other words; "
            "say with --model where the model is, with its own tokenizer"
        )
