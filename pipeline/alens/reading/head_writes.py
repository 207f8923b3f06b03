"""What heads write on a prompt: the direct write of each, in logits.

In: lenses with their model, and the cache that they were fitted on where their directory does not hold E[z]. Out: logits
centred over the vocabulary, signed (`rows/direct_write.py`), or the reason why they cannot be had.
Shapes: H heads, T tokens, E d_head, D d_model, C chosen tokens, V vocabulary.
"""

from collections.abc import Sequence
from pathlib import Path

import torch

from alens.errors import RequestError
from alens.heads import Heads
from alens.lens.lenses import Lenses
from alens.model.models import LoadedModel
from alens.rows.direct_write import centred_logits, direct_write
from alens.rows.row_scales import RowScales
from alens.store.schema import ATTN_Z


class HeadWrites:
    """The direct writes of the heads that have lenses."""

    def __init__(
        self,
        lenses: Lenses,
        model: LoadedModel,
        *,
        no_unembedding: str | None,
        store: Path | str | None = None,
    ) -> None:
        """`no_unembedding` says why what these heads write cannot be unembedded; None where it can. E[z] comes from the
        cache `store` where one is named, else from the lenses.

        Raises `RequestError` for a cache of another model, or without the layers of these lenses.
        """
        self._lenses, self._model, self._unknown = lenses, model, no_unembedding
        if no_unembedding is None and lenses.record.site != ATTN_Z:
            self._unknown = f"these are lenses of {lenses.record.site}, not of heads"
        self._mean_z: dict[int, torch.Tensor | None] = {}
        if store is not None:
            self._mean_z |= _mean_of_cache(store, lenses)

    def lacking(self, heads: Heads) -> str | None:
        """What keeps the write of these heads from being made, for a message; None where nothing does."""
        if self._unknown is not None:
            return self._unknown
        if all(self._mean(layer, numbers) is not None for layer, numbers in heads.by_layer.items()):
            return None
        return (
            f"{self._lenses.name} does not hold the mean z of its heads (an earlier alens made it, or it was imported): "
            "name the cache of the fit with --store, or fit again"
        )

    def final(
        self, layer: int, heads: Sequence[int], z_HTE: torch.Tensor, scale_T: RowScales
    ) -> torch.Tensor:
        """(H, T, D) float32: what each head adds to the final normed residual, where norms divide by `scale_T`.

        Raises `RequestError` with the reason that `lacking` gives.
        """
        if (why := self.lacking(Heads.grid((layer,), tuple(heads)))) is not None:
            raise RequestError(f"what heads write is not known: {why}")
        mean_HE, norm = self._mean(layer, heads), self._model.final_norm
        assert mean_HE is not None and norm is not None  # else `lacking` says so
        with torch.inference_mode():
            W_O_HED = self._model.W_O_LHED[layer, list(heads)]
            mean_H1E = mean_HE.to(z_HTE.device)[:, None]
            return direct_write(z_HTE, mean_H1E, W_O_HED, norm, scale_T.write(layer))

    def logits(
        self,
        layer: int,
        heads: Sequence[int],
        z_HTE: torch.Tensor,
        scale_T: RowScales,
        tokens: Sequence[int] | None = None,
    ) -> torch.Tensor:
        """(H, T, V) logits of the direct write, centred over the vocabulary; (H, T, C) for `tokens` alone.

        Raises like `final`.
        """
        final_HTD = self.final(layer, heads, z_HTE, scale_T)
        with torch.inference_mode():
            return centred_logits(final_HTD, self._model.W_U_DV, tokens)

    def _mean(self, layer: int, heads: Sequence[int]) -> torch.Tensor | None:
        """(H, E) E[z] of these heads; None where it is not known."""
        if layer not in self._mean_z:
            self._mean_z[layer] = self._lenses.mean_z(layer)
        mean_HE = self._mean_z[layer]
        if mean_HE is None:
            return None
        return mean_HE[[self._lenses.place(layer, head) for head in heads]]


def _mean_of_cache(store: Path | str, lenses: Lenses) -> dict[int, torch.Tensor | None]:
    """E[z] of all heads that have lenses, by layer, over the cache `store`."""
    from alens.rows import moments  # these import Zarr, and `alens read` needs a cache for old lenses alone
    from alens.store.cache_reader import open_cache

    cache = open_cache(store)
    lenses.check_model(cache.plan.model, str(store))
    return dict(moments.mean_z(cache, lenses.record.lenses))
