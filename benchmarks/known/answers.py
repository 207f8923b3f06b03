"""What heads do to the answer and the foil of prompts whose answer is known, measured and as readings say.

In: a loaded model, lenses of all its heads, and effect lenses of some. Out: for each head, prompt and word (answer, foil)
what the word's logit loses when z of the head is replaced by its mean at every position, and what each reading says the
head adds to it at the last position. Logits are centred over the vocabulary. The readings: `written`, `unembedding` (of the
whole z), `effect` (of effect lenses), and `lens`: the log lift, log-probability of the word by the lens less that in the
mean output.
Shapes: P prompts, B of one length, L layers, H heads, E d_head, D d_model, two words: the answer and the foil.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from real.known_answers import questions

from alens.heads import Head
from alens.lens.effect_lenses import EffectLenses
from alens.model import activations
from alens.model.activations import Activations
from alens.model.models import LoadedModel
from alens.model.partial_pass import clean_pass
from alens.reading.lensed_model import LensedModel
from alens.rows.direct_write import centred_logits, direct_write

from . import ablation

Array = npt.NDArray[np.float64]

MEASURED = "measured"
"""Among the readings, what the model loses."""


@dataclass(frozen=True, kw_only=True)
class AnswerEffects:
    """Figures of every head on every prompt."""

    difference_P: Array
    """The model's logit of the answer less that of the foil."""
    effects: dict[Head, Array]
    """(P, 2) what answer and foil lose without the head."""
    readings: dict[str, dict[Head, Array]]
    """(P, 2) by the name of a reading, and by head; heads that a reading does not know are left out."""


def answer_effects(
    model: LoadedModel,
    reader: LensedModel | None,
    effect_lenses: EffectLenses | None = None,
    *,
    kind: str,
    most: int | None = None,
    layers: Sequence[int] | None = None,
    measured: Path | None = None,
) -> AnswerEffects:
    """Measure and read all heads, of all layers or some, on the prompts of a kind whose words are single tokens, `most` of
    them at most.

    With `measured`, effects are taken from this file where it is there, and kept in it where it is not.
    """
    batches = _batches(model, reader, kind, most)
    means = _means(model, reader, [tokens_BT for tokens_BT, _ in batches])
    parts: dict[str, dict[Head, list[Array]]] = defaultdict(lambda: defaultdict(list))
    differences = []
    layers = range(len(model.W_O_LHED)) if layers is None else layers
    known = measured is not None and measured.exists()
    for tokens_BT, words_B2 in batches:
        with torch.inference_mode():
            ran = activations.run(model, tokens_BT, layers)
        whole_B2 = _centred(model, ran.final_BTD[:, -1], words_B2)
        differences.append((whole_B2[:, 0] - whole_B2[:, 1]).numpy())
        clean = None if known else clean_pass(model, tokens_BT, layers)
        for layer in layers:
            if clean is not None:
                for copies, final_CD in ablation.last_without_each(model, clean, layer, means[layer]):
                    for (head, sequence), final_D in zip(copies, final_CD, strict=True):
                        left_2 = _centred(model, final_D[None], words_B2[sequence : sequence + 1])[0]
                        parts[MEASURED][layer, head].append((whole_B2[sequence] - left_2).numpy()[None])
            for name, head, values_B2 in _readings(
                model, reader, effect_lenses, ran, layer, means[layer], words_B2
            ):
                parts[name][layer, head].append(values_B2.numpy())
    joined = {
        name: {head: np.concatenate(pieces).astype(np.float64) for head, pieces in by_head.items()}
        for name, by_head in parts.items()
    }
    effects = _kept(measured, joined.pop(MEASURED, {}), len(np.concatenate(differences)))
    return AnswerEffects(difference_P=np.concatenate(differences), effects=effects, readings=joined)


def _kept(measured: Path | None, effects: dict[Head, Array], prompts: int) -> dict[Head, Array]:
    """`effects`, written into the file; or what the file holds."""
    if measured is None:
        return effects
    if effects:
        heads = list(effects)
        np.savez(measured, heads=np.array(heads), effects=np.stack([effects[head] for head in heads]))
        return effects
    with np.load(measured) as file:
        kept = {
            (int(layer), int(head)): values
            for (layer, head), values in zip(file["heads"], file["effects"], strict=True)
        }
    if any(len(values) != prompts for values in kept.values()):
        raise SystemExit(f"{measured} is of other prompts: remove it")
    return kept


def _batches(
    model: LoadedModel, reader: LensedModel | None, kind: str, most: int | None
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """(B, T) tokens and (B, 2) answers and foils, of each length."""
    bos = None if reader is None else reader.lenses.record.bos
    by_length: dict[int, list[tuple[list[int], list[int]]]] = defaultdict(list)
    for asked in [one for one in questions() if one.kind == kind][:most]:
        prompt, *words = (
            model.tokenizer.encode(text, add_special_tokens=False).ids
            for text in (asked.prompt, asked.answer, asked.foil)
        )
        if all(len(word) == 1 for word in words):
            ids = prompt if bos is None else [bos, *prompt]
            by_length[len(ids)].append((ids, [word[0] for word in words]))
    if not by_length:
        raise SystemExit(f"no answer of kind {kind!r} is a single token of this model: leave this part out")
    return [
        (torch.tensor([ids for ids, _ in group]), torch.tensor([words for _, words in group]))
        for group in by_length.values()
    ]


def _means(
    model: LoadedModel, reader: LensedModel | None, batches: list[torch.Tensor]
) -> dict[int, torch.Tensor]:
    """(H, E) E[z] of each layer: of the lenses, or of the prompts where there are none."""
    if reader is None:
        return ablation.mean_z(model, batches)
    means = {}
    for layer in range(len(model.W_O_LHED)):
        mean_HE = reader.lenses.mean_z(layer, range(model.W_O_LHED.shape[1]))
        if mean_HE is None:
            raise SystemExit(f"{reader.lenses.name} does not hold the mean z of its heads: fit it again")
        means[layer] = mean_HE
    return means


def _readings(
    model: LoadedModel,
    reader: LensedModel | None,
    effect_lenses: EffectLenses | None,
    ran: Activations,
    layer: int,
    mean_HE: torch.Tensor,
    words_B2: torch.Tensor,
) -> Iterator[tuple[str, int, torch.Tensor]]:
    """Reading, head, and (B, 2) what it says that a head of the layer adds to the words at the last position."""
    z_HBE = ran.z_BTHE[layer][:, -1].float().transpose(0, 1)
    assert ran.scale_BT is not None and model.final_norm is not None, "the last norm is not known"
    scale_B = ran.scale_BT[:, -1]
    if layer in ran.write_scale_BT:
        scale_B = scale_B * ran.write_scale_BT[layer][:, -1]
    for head, (z_BE, mean_E) in enumerate(zip(z_HBE, mean_HE, strict=True)):
        W_O_ED = model.W_O_LHED[layer, head]
        for name, centre_E in (("written", mean_E), ("unembedding", torch.zeros_like(mean_E))):
            final_BD = direct_write(z_BE, centre_E, W_O_ED, model.final_norm, scale_B)
            yield name, head, _centred(model, final_BD, words_B2)
        if effect_lenses is not None and effect_lenses.has(layer, head):
            (final_BD,) = effect_lenses.final(layer, [head], z_BE[None])
            yield "effect", head, _centred(model, final_BD, words_B2)
        if reader is not None:
            assert reader.log_mean_V is not None, f"{reader.lenses.name} does not say the mean output"
            (lens_BV,) = reader.lens(layer, [head], z_BE[None])
            yield "lens", head, (lens_BV - reader.log_mean_V.log_softmax(-1)).gather(-1, words_B2)


def _centred(model: LoadedModel, final_BD: torch.Tensor, words_B2: torch.Tensor) -> torch.Tensor:
    """(B, 2) the logits of each row's words, centred over the vocabulary."""
    with torch.inference_mode():
        distinct, place_B2 = words_B2.unique(return_inverse=True)
        return centred_logits(final_BD, model.W_U_DV, distinct.tolist()).gather(-1, place_B2)
