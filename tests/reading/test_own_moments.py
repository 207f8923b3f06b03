"""What lenses say on average, beside what they say about the rows of their cache."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from alens import HeadReader, load_lenses, open_cache
from alens.errors import RequestError
from alens.reading.own_moments import own_moments
from alens.reading.settings import OWN_LIFT, Z_SCORE


def test_mean_and_deviation_are_those_of_the_rows(closed_forms: Path, demo_cache: Path) -> None:
    reader, cache = HeadReader(load_lenses(closed_forms), device="cpu"), open_cache(demo_cache)
    settings = cache.plan.settings
    rows = torch.arange(settings.rows_per_shard * len(cache.shards))
    usable = rows[rows % settings.seq_len >= 1]
    z_NHE = torch.from_numpy(cache.z(3, slice(0, len(rows)))[usable.numpy()])[:, [4, 1]].float()
    mean_V = reader.log_mean_V
    assert mean_V is not None
    for place, own in enumerate(own_moments(reader, 3, (4, 1), Z_SCORE)):
        assert own is not None and own[1] is not None
        logits_NV = reader.lens_logits(3, [(4, 1)[place]], z_NHE[None, :, place])[0]
        logits_NV = logits_NV - (logits_NV @ mean_V.softmax(-1))[:, None]
        middle_V = own[0] - own[0] @ mean_V.softmax(-1)
        apart = (logits_NV.mean(0) - middle_V).abs().max()
        assert apart < 0.1 * own[1].mean()  # the fit holds some documents out
        torch.testing.assert_close(logits_NV.std(0), own[1], rtol=0.1, atol=1e-3)


def test_lists_by_them_need_what_lenses_hold(
    run_alens: Any, closed_forms: Path, demo_lenses: Path, tmp_path: Path
) -> None:
    given = ("read", closed_forms, "It was a dark and stormy", "--top", "6", "--rank")
    lists = {}
    for rank in ("lift", "own-lift", "z-score"):
        text = run_alens(*given, rank)
        ordered = {"lift": r"x\n", "own-lift": r"\d+x +[\d.,]+x\n", "z-score": r"\d+x +z \+\d+\.\d\n"}[rank]
        assert re.search(ordered, re.sub(r" *(\n|  [\"'])", r"\n", text.stdout))
        assert text.code == 0 and f"Lists by {rank.replace('own-', 'own ')} (" in text.stdout
        reader = HeadReader(load_lenses(closed_forms), device="cpu")
        lists[rank] = [head.lens for head in reader.read("It was a dark and stormy", top=6, rank=rank).heads]
        assert all(score.probability >= 0.001 for scores in lists[rank] for score in scores)
        ordering = [[one.lift if rank == "lift" else one.score for one in scores] for scores in lists[rank]]
        assert all(scores == sorted(scores, reverse=True) for scores in ordering)
        assert rank != "lift" or all(one.score is None for scores in lists[rank] for one in scores)
    assert lists["lift"] != lists["own-lift"] != lists["z-score"]
    reader = HeadReader(load_lenses(demo_lenses), device="cpu")
    with pytest.raises(RequestError, match=r"^lenses of the design 'linear' do not hold how z spreads"):
        reader.read("It was", rank="z-score")
    code, _, err = run_alens(
        "read", closed_forms, "It was", "--rank", "z-score", "--html", tmp_path / "page.html"
    )
    assert code == 2 and "a page has lists by lift and by probability" in err


def test_only_lists_that_need_it_ask_for_the_mean(closed_forms: Path) -> None:
    reader = HeadReader(load_lenses(closed_forms), device="cpu")
    assert own_moments(reader, 3, (1,), "lift") == [None]
    (own,) = own_moments(reader, 3, (1,), OWN_LIFT)
    assert own is not None and own[1] is None
