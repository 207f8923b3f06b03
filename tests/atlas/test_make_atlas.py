"""The pages of an atlas say what the cache, the lenses and other commands say."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from alens import load_lenses, open_cache
from alens.atlas.atlas_folder import head_file
from alens.atlas.chosen_rows import ChosenRows
from alens.atlas.markup import lines_shown, visible
from alens.atlas.row_text import RowText
from alens.evaluation.shards import judged_text
from alens.model import models
from alens.rows.direct_write import centred_logits, direct_write
from alens.rows.final_norm import FinalNorm
from alens.store.cache_reader import Cache

from ..folders import file_names
from ..outcomes import assert_one_line
from ..page_data import held
from .conftest import HEADS, JUDGED_ROWS, ROWS
from .pages_of_atlas import links, table, text_of

HEAD = (3, 4)


@pytest.fixture(scope="module")
def cache(demo_cache: Path) -> Cache:
    return open_cache(demo_cache)


@pytest.fixture(scope="module")
def rows(demo_lenses: Path, cache: Cache) -> ChosenRows:
    return ChosenRows.of_text(cache, judged_text(load_lenses(demo_lenses), cache), ROWS, 1)


@pytest.fixture(scope="module")
def written(demo_lenses: Path, cache: Cache, rows: ChosenRows) -> dict[tuple[int, int], torch.Tensor]:
    """(N, V) logits that each head writes on the rows, by the formula of `rows/direct_write.py`."""
    lenses, norm, by_head = load_lenses(demo_lenses), FinalNorm.of_cache(cache), {}
    scale_N = torch.from_numpy(rows.read("targets/final_scale"))
    for layer, head in HEADS:
        z_NE = torch.from_numpy(cache.z(layer, rows.rows_N)[:, head].astype(np.float32))
        mean_HE, W_O_ED = lenses.mean_z(layer, [head]), torch.from_numpy(cache.weights("W_O")[layer, head])
        assert norm is not None and mean_HE is not None
        final_ND = direct_write(z_NE, mean_HE[0], W_O_ED, norm, scale_N)
        by_head[layer, head] = centred_logits(final_ND, torch.from_numpy(cache.weights("W_U")))
    return by_head


@pytest.fixture(scope="module")
def text(rows: ChosenRows) -> RowText:
    return RowText(rows, models.load_tokenizer(models.find("demo"))[0])


def page_of(atlas: Path, head: tuple[int, int] = HEAD) -> Path:
    return atlas / head_file(head)


def script(atlas: Path, name: str) -> Any:
    """What a script of the index of tokens assigns."""
    first, second = (atlas / "tokens" / f"{name}.js").read_text().splitlines()
    assert first == "window.alensAtlas ??= { parts: {} };"
    return json.loads(second.partition(" = ")[2].rstrip(";"))


def token_parts(atlas: Path) -> list[Any]:
    count = len(list((atlas / "tokens").glob("part-*.js")))
    return [script(atlas, f"part-{number}") for number in range(count)]


def test_rows_are_of_the_text_that_no_fit_has_seen(rows: ChosenRows, demo_lenses: Path, cache: Cache) -> None:
    assert len(rows) == ROWS and rows.position_N.min() >= 1
    shards = np.unique(rows.rows_N // cache.plan.settings.rows_per_shard).tolist()
    assert shards == load_lenses(demo_lenses).record.cache["held_out_shards"]
    assert (cache.read("rows/position", rows.rows_N) == rows.position_N).all()


def test_every_head_has_its_page_and_every_link_a_place(atlas: Path) -> None:
    parts = [f"tokens/part-{number}.js" for number in range(len(token_parts(atlas)))]
    assert file_names(atlas) == sorted(
        ["index.html", *map(head_file, HEADS), *parts, "tokens/names.js", "tokens/rows.js"]
    )
    for name in ("index.html", *map(head_file, HEADS)):
        for link in links(atlas / name):
            file = link.partition("#")[0]
            assert link == "data:," or ((atlas / name).parent / file).is_file(), link
    assert set(map(head_file, HEADS)) <= set(links(atlas / "index.html"))


def test_nothing_of_others_becomes_markup(atlas: Path) -> None:
    text = page_of(atlas).read_text()
    assert "&lt;copying&gt;" in text and "<copying>" not in text and "<script" not in text
    assert "default-src 'none'" in text


@pytest.mark.parametrize(("caption", "sign"), [("Raised most", 1), ("Lowered most", -1)])
def test_tokens_over_the_cache_are_those_of_the_write(
    atlas: Path, written: dict[tuple[int, int], torch.Tensor], text: RowText, caption: str, sign: int
) -> None:
    values_NK, ids_NK = (sign * written[HEAD]).topk(10)
    totals_V = torch.zeros(written[HEAD].shape[1]).index_add_(
        0, ids_NK.flatten(), values_NK.flatten().square()
    )
    shown = table(page_of(atlas), caption)
    best = totals_V.topk(len(shown)).indices.tolist()
    assert [row[0] for row in shown] == [visible(text.token(token)) for token in best]
    for (_, share, mean), token in zip(shown, best, strict=True):
        listed = ids_NK == token
        assert float(share.rstrip("%")) == pytest.approx(100 * float(listed.any(1).float().mean()), abs=0.051)
        assert float(mean) == pytest.approx(sign * float(values_NK[listed].mean()), abs=0.0051)


def test_the_rows_are_the_strongest_and_the_usual(
    atlas: Path, written: dict[tuple[int, int], torch.Tensor], text: RowText
) -> None:
    strength_N = written[HEAD].std(-1, correction=0)
    section = page_of(atlas).read_text().partition("Where it writes most")[2].partition("<section")[0]
    groups = dict(re.findall(r"<h3>(.*?)</h3><ol>(.*?)</ol>", section, re.DOTALL))
    assert list(groups) == ["Strongest", "The 90th percentile", "The median row"]
    order = strength_N.argsort(descending=True).tolist()
    sizes = [float(size) for size in re.findall(r'class="quiet">([\d.]+) logits', groups["Strongest"])]
    assert sizes == pytest.approx(strength_N[order[:5]].tolist(), abs=0.0051)
    usual = re.findall(r'class="quiet">([\d.]+) logits', groups["The median row"])
    assert [float(size) for size in usual] == pytest.approx([float(strength_N.median())] * 3, abs=0.02)
    first = re.findall(r"<li>(.*?)</li>", groups["Strongest"], re.DOTALL)[0]
    before, token, _ = text.around(order[0])
    assert text_of(first).startswith(text_of(lines_shown(before)) + " " + token.strip())
    raised = written[HEAD][order[0]].topk(5).indices.tolist()
    shown = re.findall(r"<div><dt>raises</dt><dd>(.*?)</dd>", first, re.DOTALL)[0]
    words = [text_of(word) for word in re.findall(r"<a[^>]*>(.*?)</a>", shown)]
    assert words == [visible(text.token(token)) for token in raised]


def test_heads_that_write_alike_are_found_by_their_logits(
    atlas: Path, written: dict[tuple[int, int], torch.Tensor]
) -> None:
    places = np.linspace(0, ROWS - 1, 256).round().astype(int)
    flat = {head: of_head[places].double().flatten() for head, of_head in written.items()}
    text = page_of(atlas).read_text().partition("most alike")[2].partition("</li>")[0]
    shown = re.findall(r"(\d+\.\d+)</a> <span[^>]*>([+-][\d.]+)<", text)
    cosines = {
        f"{layer}.{head}": float(torch.nn.functional.cosine_similarity(flat[layer, head], flat[HEAD], dim=0))
        for layer, head in HEADS
        if (layer, head) != HEAD
    }
    assert [name for name, _ in shown] == sorted(cosines, key=lambda name: -cosines[name])
    assert [float(value) for _, value in shown] == pytest.approx(
        [cosines[name] for name, _ in shown], abs=0.0051
    )


def test_figures_are_those_of_eval(atlas: Path, demo_lenses: Path, demo_cache: Path, run_alens: Any) -> None:
    outcome = run_alens("eval", demo_lenses, demo_cache, "--rows", JUDGED_ROWS, "--device", "cpu", "--json")
    readings = json.loads(outcome.stdout)["readings"]
    (lens,) = [r for r in readings if (r["layer"], r["head"], r["reading"]) == (*HEAD, "lens")]
    (shown,) = [row for row in table(page_of(atlas), "reading") if row[0] == "lens"]
    low, high = lens["intervals"]["kl"]
    assert shown[1] == f"{lens['kl']:.3f} {low:.3f} to {high:.3f}"
    (mean,) = [r for r in readings if r["reading"] == "mean-output" and r["head"] is None]
    (gain,) = [f for f in held((atlas / "index.html").read_text())["figures"] if "knows" in f["title"]]
    assert gain["values"][HEADS.index(HEAD)] == pytest.approx(mean["kl"] - lens["kl"], rel=1e-3)


def test_roles_are_ranked_within_their_family(atlas: Path) -> None:
    assert table(page_of(atlas), "family") == [
        ["induction", "0.250", "0.062", "1 of 4"],
        ["<copying>", "0.125", "0.062", "4 of 4"],
    ]
    (induction,) = [
        f for f in held((atlas / "index.html").read_text())["figures"] if f["title"] == "induction"
    ]
    assert induction["values"] == [0.0625, 0.0625, 0.0625, 0.1875]


def test_the_index_of_tokens_has_the_heads_that_write_each(
    atlas: Path, written: dict[tuple[int, int], torch.Tensor], rows: ChosenRows, text: RowText
) -> None:
    entries = [entry for part in token_parts(atlas) for entry in part]
    names, shown = script(atlas, "names"), script(atlas, "rows")
    written_HNV = torch.stack([written[head] for head in HEADS])
    assert len(entries) == len(names) == written_HNV.shape[-1]
    next_N = text.next_ids()
    common = np.bincount(next_N[next_N >= 0]).argsort()[-3:].tolist()
    for token in (*range(0, len(names), 97), *common):
        assert names[token] == text.token(token)
        raised, lowered, coming = entries[token]
        for flat, values_HN in ((raised, written_HNV[:, :, token]), (lowered, -written_HNV[:, :, token])):
            peaks_H = values_HN.amax(1)
            expected = [h for h in peaks_H.argsort(descending=True).tolist() if peaks_H[h] >= 0.055]
            assert flat[::3][: len(expected)] == expected
            for head, value, row in zip(flat[::3], flat[1::3], flat[2::3], strict=True):
                assert value == pytest.approx(100 * float(peaks_H[head]), abs=0.51)
                assert float(values_HN[head, row]) == pytest.approx(float(peaks_H[head]), abs=1e-5)
                assert shown[str(row)] == list(text.short(row))
        before = next_N == token
        if coming:
            assert coming[2] == before.sum() >= 3
            mean = float(written_HNV[coming[0], before, token].mean())
            assert coming[1] == pytest.approx(100 * mean, abs=0.51)
    assert any(entry[2] for entry in entries)


def test_figures_are_taken_from_a_file_of_eval(
    demo_lenses: Path, demo_cache: Path, run_alens: Any, tmp_path: Path
) -> None:
    file, out = tmp_path / "eval.json", tmp_path / "atlas"
    file.write_text(run_alens("eval", demo_lenses, demo_cache, "--rows", 96, "--layers", 3, "--json").stdout)
    few = ("--html", out, "--figures", file, "--rows", 8, "--roles", "none")
    outcome = run_alens("atlas", demo_lenses, demo_cache, *few, "--heads", "3.4", "--json")
    assert json.loads(outcome.stdout)["judged_rows"] == 96
    (lens,) = [
        r for r in json.loads(file.read_text())["readings"] if (r["head"], r["reading"]) == (4, "lens")
    ]
    assert table(page_of(out), "reading")[0][1].startswith(f"{lens['kl']:.3f} ")
    assert_one_line(
        run_alens("atlas", demo_lenses, demo_cache, *few, "--heads", "0.1"), 2, "has no figures of head 0.1"
    )
    file.write_text("[]")
    assert_one_line(
        run_alens("atlas", demo_lenses, demo_cache, *few), 2, "that `alens eval LENSES STORE --json` wrote"
    )
