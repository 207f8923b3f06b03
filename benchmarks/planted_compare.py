"""Does `alens compare` find what was planted, and nothing where nothing is? Answers known by construction.

Planted: pairs of prompts that differ in one word, the trigger. In a copy of the lenses one head gets a rank-one term:
along the direction of its z that the trigger moves, the logit of one chosen token rises by STRENGTH nats (found on
other prompts than those compared). The answer is that head, and that token. Null: one pool of prompts, split at
random, again and again. Known: sets of 30 of 130 pairs, whose detectors are also judged on the pairs left over; how
often does the interval hold their mean AUC there?

In: lenses (default: fitted to a cache of the demo made here). Out: three tables on standard output, and with --json one document.

    python benchmarks/planted_compare.py [LENSES] [--strengths 0,1,2,4,6,8] [--splits 100] [--json FILE]
"""

import argparse
import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("DS_ACCELERATOR", "cpu")

import numpy as np
import torch

from alens import CacheRequest, FitRequest, fit_lenses, load_lenses, write_cache
from alens.fit.settings import FitSettings
from alens.heads import Heads
from alens.lens.directory import LensDirectory, layer_file
from alens.lens.lenses import Lenses
from alens.machine.allotment import follow_allotment
from alens.reading.lensed_model import LensedModel
from alens.reading.prompts import Prompt
from alens.store.schema import CacheSettings
from alens.studies.comparison import chance, prompt_scores
from alens.studies.comparison.compare import compare
from alens.studies.comparison.detectors import Detectors
from alens.studies.comparison.prompt_readings import PromptReadings
from alens.studies.comparison.prompt_sets import PromptSet, prompt_tokens
from alens.studies.comparison.refits import Refits
from alens.studies.comparison.result import Comparison
from alens.studies.comparison.settings import LAST, CompareSettings

TRIGGER, NEUTRAL = "black", "old"
TERM = " gold"
PLANTED = ((0, 2), (2, 1), (3, 3))
"""Heads in turn, those that the lenses have."""
NULL_HEADS = (0, 3)
"""Heads of every layer, as far as the lenses have them: a few heads show as much as all, and are quicker."""
PAIRS, RESAMPLES = 30, 199

WHO = ["captain", "doctor", "servant", "lawyer", "soldier", "teacher", "farmer", "stranger", "boy", "girl"]
DID = ["looked at", "walked to", "stood by", "came from", "turned to", "spoke of", "thought of", "went past"]
WHAT = ["house", "door", "horse", "table", "tree", "wall", "bridge", "book", "boat", "church"]
END = [
    "and then he",
    "and said to her",
    "while the rain fell on the",
    "but nobody was",
    "until they came to a",
]


def sentences(number: int, seed: int, adjective: str) -> list[str]:
    """Distinct prompts of the same four parts; the same seed with another adjective gives the other of each pair."""
    rng = np.random.default_rng(seed)
    every = [(w, d, t, e) for w in WHO for d in DID for t in WHAT for e in END]
    chosen = [every[place] for place in rng.permutation(len(every))[:number]]
    return [f"The {w} {d} the {adjective} {t} {e}" for w, d, t, e in chosen]


def as_set(name: str, texts: Sequence[str]) -> PromptSet:
    """As a file of them would be."""
    prompts = [Prompt(text=text, label=None, source=f"{name}:{n}") for n, text in enumerate(texts, start=1)]
    return PromptSet(name=name, prompts=prompts, is_file=True, repeated=0)


def demo_lenses(folder: Path) -> Path:
    """All heads of the demo, on a small cache."""
    settings = CacheSettings(seq_len=64, rows_per_shard=4096, max_rows=32768, exact_teacher=True)
    write_cache(
        CacheRequest(model="demo", corpus="demo", store=folder / "cache", settings=settings, device="cpu")
    )
    request = FitRequest(
        store=folder / "cache", lenses=folder / "lenses", settings=FitSettings(eval_rows=1024), device="cpu"
    )
    fit_lenses(request)
    return folder / "lenses"


def z_of(reader: LensedModel, texts: Sequence[str], layer: int, head: int) -> torch.Tensor:
    """(N, E) of the last token of each prompt."""
    runs = [reader.run(reader.tokens(text), [layer]) for text in texts]
    return torch.stack([reader.values(one, layer, [head])[0, -1] for one in runs])


def plant(
    reader: LensedModel, out: Path, head: tuple[int, int], term: int, strength: float, num: int
) -> Lenses:
    """A copy of the lenses in `out`, in which the trigger raises the term's logit in one head by `strength` on average."""
    lenses, (layer, number) = reader.lenses, head
    index = lenses.place(*head)
    clean_NE, suspect_NE = (
        z_of(reader, sentences(num, 7, word), layer, number) for word in (NEUTRAL, TRIGGER)
    )
    moved_E = (suspect_NE - clean_NE).mean(0)
    spread_EE = torch.cov(clean_NE.T) + torch.cov((suspect_NE - clean_NE).T)
    spread_EE += 0.1 * spread_EE.diagonal().mean() * torch.eye(len(moved_E))
    direction_E = torch.linalg.solve(spread_EE, moved_E)
    direction_E *= strength / (direction_E @ moved_E)
    out.mkdir()
    files = dict(lenses.record.files)
    for path in lenses.root.glob("*.safetensors"):
        (out / path.name).write_bytes(path.read_bytes())
    kept = lenses.layer(layer)
    weight_HEV, bias_HV = kept.weight_HEV.clone(), kept.bias_HV.clone()
    weight_HEV[index, :, term] += direction_E
    bias_HV[index, term] -= direction_E @ clean_NE.mean(0)
    assert kept.W_O_HED is not None
    tensors = {"weight": weight_HEV, "bias": bias_HV, "W_O": kept.W_O_HED}
    directory = LensDirectory(out)
    files[layer_file(layer)] = directory.put_layer(layer, lenses.record.lenses.by_layer[layer], tensors)
    directory.put_record(replace(lenses.record, files=files))
    return load_lenses(out)


def planted_row(
    reader: LensedModel, folder: Path, head: tuple[int, int], strength: float, pairs: int = PAIRS
) -> dict[str, Any]:
    """Where the planted head and token come in a comparison."""
    (term,) = reader.model.tokenizer.encode(TERM, add_special_tokens=False).ids
    reader.lenses, before = plant(reader, folder, head, term, strength, 40), reader.lenses
    try:
        comparison: Comparison = compare(
            reader,
            as_set("clean", sentences(pairs, 8, NEUTRAL)),
            as_set("suspect", sentences(pairs, 8, TRIGGER)),
            settings=CompareSettings(
                top=reader.lenses.record.model.d_vocab, resamples=RESAMPLES, paired=True
            ),
        )
    finally:
        reader.lenses = before
    rank = [(one.layer, one.head) for one in comparison.heads].index(head) + 1
    change = comparison.heads[rank - 1].lens
    risen = [one.id for one in change.appear]
    assert comparison.detection is not None and change.noise is not None
    (alone,) = [one for one in comparison.detection.heads if (one.layer, one.head) == head]
    return {
        "head": f"{head[0]}.{head[1]}",
        "strength": strength,
        "rank_of_head": rank,
        "heads": len(comparison.heads),
        "divergence": change.divergence,
        "noise": change.noise.expected,
        "p_adjusted": change.noise.p_adjusted,
        "rank_of_term": risen.index(term) + 1 if term in risen else None,
        "auc_of_head": alone.contrast_auc,
        "auc_of_all": comparison.detection.lens_contrast.auc,
        "auc_of_model": comparison.detection.model_contrast.auc,
    }


def null(reader: LensedModel, splits: int, pool: int = 2 * PAIRS) -> dict[str, Any]:
    """One pool, split at random: how often some head is called changed, and what detectors make of nothing."""
    every_head = reader.chosen(None, None)
    heads = Heads.grouped([pair for pair in every_head if pair[1] in NULL_HEADS] or every_head)
    ids, rows = prompt_tokens(reader, as_set("pool", sentences(pool, 9, NEUTRAL)).prompts, LAST)
    readings = PromptReadings(reader, ids, rows, heads)
    every = [readings.says("lens", layer, head) for layer, head in heads]
    half = pool // 2
    adjusted, alone, judged, covered, flagged, widths = [], [], [], [], [], []
    for number in range(splits):
        order = torch.from_numpy(np.random.default_rng([10, number]).permutation(pool))
        by_chance = chance.Chance(half, pool - half, RESAMPLES, number)
        mixed = [one[order] for one in every]
        alone_H, adjusted_H = chance.p_values([by_chance.draws(one) for one in mixed])
        adjusted.append(adjusted_H.min())
        alone.append((alone_H <= 0.05).mean())
        suspect_N = np.repeat([False, True], [half, pool - half])
        names = [str(n) for n in range(pool)]
        folds = prompt_scores.folds(names, suspect_N, prompt_scores.FOLDS, number)
        refits = Refits(names, suspect_N, paired=False, seed=number)
        detectors = Detectors(folds, suspect_N, "folds", refits=refits)
        for one in mixed:
            detectors.add("lens", one)
        separations = detectors.separations("lens")
        judged.append([separations["contrast"].auc, separations["anomaly"].auc])
        covered.append([one.low <= 0.5 <= one.high for one in separations.values()])
        flagged.append([one.low > 0.5 for one in separations.values()])
        widths.append([one.high - one.low for one in separations.values()])
    aucs = np.array(judged)
    return {
        "splits": splits,
        "heads": len(every),
        "any_head_called_changed": float((np.array(adjusted) <= 0.05).mean()),
        "heads_with_p_of_their_own_below_0.05": float(np.mean(alone)),
        **{
            f"{name}_{figure}": float(value)
            for place, name in enumerate(("contrast", "anomaly"))
            for figure, value in (
                ("auc_mean", aucs[:, place].mean()),
                ("auc_sd", aucs[:, place].std()),
                ("interval_holds_0.5", np.mean(covered, axis=0)[place]),
                ("interval_above_0.5", np.mean(flagged, axis=0)[place]),
                ("interval_width", np.mean(widths, axis=0)[place]),
            )
        },
    }


def known(reader: LensedModel, splits: int, paired: bool, pool: int = 130) -> dict[str, Any]:
    """How often intervals hold the mean AUC on other prompts of detectors fitted on as many; each head by itself."""
    every_head = reader.chosen(None, None)
    heads = Heads.grouped([pair for pair in every_head if pair[1] in NULL_HEADS] or every_head)
    texts = sentences(pool, 9, NEUTRAL) + sentences(pool, 9, TRIGGER)
    readings = PromptReadings(reader, *prompt_tokens(reader, as_set("pool", texts).prompts, LAST), heads)
    every = {f"{layer}.{head}": readings.says("lens", layer, head) for layer, head in heads}
    flags, fresh_flags = np.repeat([False, True], PAIRS), np.repeat([False, True], pool - 2 * PAIRS)
    names = [str(n % PAIRS if paired else n) for n in range(2 * PAIRS)]
    once = [prompt_scores.Split(fit=np.arange(2 * PAIRS), judge=np.arange(2 * PAIRS, 2 * (pool - PAIRS)))]
    by_kind: dict[tuple[str, str], list[tuple[float, float, float, float]]] = {}
    for number in range(splits):
        order = np.random.default_rng([11, number]).permutation(pool)
        clean, suspect, rest = order[:PAIRS], order[0 if paired else PAIRS :][:PAIRS], order[2 * PAIRS :]
        used, fresh = np.r_[clean, pool + suspect], np.r_[clean, pool + suspect, rest, pool + rest]
        refits = Refits(names, flags, paired=paired, seed=number)
        folds = prompt_scores.folds(names, flags, prompt_scores.FOLDS, number)
        here = Detectors(folds, flags, "folds", paired=paired, refits=refits)
        there = Detectors(once, np.r_[flags, fresh_flags], "the rest", paired=True)
        for name, one in every.items():
            here.add(name, one[used])
            there.add(name, one[fresh])
            judged, right = here.separations(name), there.separations(name)
            for kind, own in judged.items():
                by_kind.setdefault((kind, name), []).append((own.auc, own.low, own.high, right[kind].auc))
    rows = {key: np.array(values) for key, values in by_kind.items()}
    held = {
        key: float(((row[:, 1] <= row[:, 3].mean()) & (row[:, 3].mean() <= row[:, 2])).mean())
        for key, row in rows.items()
    }
    return {
        f"{kind}_{figure}": value
        for kind in ("contrast", "anomaly")
        for own in [[key for key in rows if key[0] == kind]]
        for figure, value in (
            ("auc_by_head", [round(float(rows[key][:, 0].mean()), 3) for key in own]),
            ("auc_on_other_prompts", [round(float(rows[key][:, 3].mean()), 3) for key in own]),
            ("interval_holds_that", [held[key] for key in own]),
            ("interval_width", float(np.mean([np.ptp(rows[key][:, 1:3], axis=1).mean() for key in own]))),
        )
    }


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("lenses", nargs="?", type=Path)
    parser.add_argument("--strengths", default="0,1,2,4,6,8")
    parser.add_argument("--splits", type=int, default=100)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args(argv)
    follow_allotment()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        reader = LensedModel(load_lenses(asked.lenses or demo_lenses(folder)), device="cpu")
        record = reader.lenses.record
        rows: list[dict[str, Any]] = []
        print(f"planted: {TRIGGER!r} for {NEUTRAL!r} raises {TERM!r}; {PAIRS} pairs, paired")
        print(
            "| head | strength | rank of head | JS | noise | p adj. | rank of term | AUC head | all | model |"
        )
        print("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")
        for head in PLANTED:
            if head not in record.lenses:
                continue
            for strength in map(float, asked.strengths.split(",")):
                row = planted_row(reader, folder / f"planted-{len(rows)}", head, strength)
                rows.append(row)
                print(
                    f"| {row['head']} | {strength:g} | {row['rank_of_head']} of {row['heads']} | {row['divergence']:.4f} "
                    f"| {row['noise']:.4f} | {row['p_adjusted']:.3f} | {row['rank_of_term'] or '-'} "
                    f"| {row['auc_of_head']:.3f} | {row['auc_of_all']:.3f} | {row['auc_of_model']:.3f} |",
                    flush=True,
                )
        nothing = null(reader, asked.splits)
        judged = {name: known(reader, asked.splits, name == "paired") for name in ("paired", "unpaired")}
    print(f"\nnull: one pool of {2 * PAIRS} prompts, split at random")
    for key, value in nothing.items():
        print(f"| {key.replace('_', ' ')} | {value:g} |")
    for name, figures in judged.items():
        print(f"\nknown: {PAIRS} on a side, {name}, each head by itself, {asked.splits} times")
        for key, value in figures.items():
            print(f"| {key.replace('_', ' ')} | {value} |")
    document = {"planted": rows, "null": nothing, "known": judged}
    if asked.json is not None:
        asked.json.write_text(json.dumps(document, indent=1) + "\n")
    return document


if __name__ == "__main__":
    main()
