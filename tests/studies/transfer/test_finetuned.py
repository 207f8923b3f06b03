"""Lenses of a model on a copy: one that computes the same in another basis, and one with other weights and text."""

import dataclasses
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from alens import CacheRequest, EvaluateSettings, evaluate, load_lenses, open_cache, write_cache
from alens.errors import RequestError
from alens.evaluation.sums import HeadFigures
from alens.job.progress import Progress
from alens.lens.lenses import Lenses
from alens.store.cache_reader import Cache
from alens.store.schema import CacheSettings, Plan
from alens.studies.transfer.copy_figures import CopyBaselines, CopyTransfer, JudgedHeads
from alens.studies.transfer.finetuned import check_copy, same_rows_in, transfer_to_copy
from alens.studies.transfer.settings import TransferSettings

ROWS = 300


@pytest.fixture(scope="module")
def rotated(demo_lenses: Path, demo_cache: Path, rotated_cache: Path) -> CopyTransfer:
    caches = (open_cache(demo_cache), open_cache(rotated_cache))
    return transfer_to_copy(load_lenses(demo_lenses), *caches, settings=TransferSettings(rows=ROWS))


def test_another_basis_in_every_head_is_undone_through_the_outputs(rotated: CopyTransfer) -> None:
    assert rotated.same_rows and rotated.shards == rotated.home_shards
    for match in ("none", "mean", "scale"):
        way = rotated.way("output", match)
        assert [head.kl for head in way.heads] == pytest.approx([head.kl for head in rotated.home], abs=2e-3)
        assert way.less_home.kl == pytest.approx(0, abs=2e-3)


def test_z_as_it_is_means_nothing_in_another_basis(rotated: CopyTransfer) -> None:
    way = rotated.way("value", "none")
    assert way.less_home.kl > 0.05
    assert way.less_home.kl_interval is not None and way.less_home.kl_interval[0] > 0.02
    assert way.less_mean_output.kl > 0
    assert way.less_home.cross_entropy_interval is not None
    low, high = way.less_home.cross_entropy_interval
    assert 0 < low < way.less_home.cross_entropy < high
    undone = rotated.way("output", "none").less_home.cross_entropy_interval
    assert undone == pytest.approx((0, 0), abs=2e-3)


def test_figures_at_home_are_those_of_eval(
    rotated: CopyTransfer, demo_lenses: Path, demo_cache: Path
) -> None:
    expected = evaluate(
        load_lenses(demo_lenses), open_cache(demo_cache), settings=EvaluateSettings(rows=ROWS)
    )
    kls = [head.kl for layer in (0, 3) for head in expected.lens[layer]]
    assert [head.kl for head in rotated.home] == pytest.approx(kls, rel=1e-5)
    assert rotated.home_mean_output.kl == pytest.approx(expected.mean_output.kl, rel=1e-5)
    assert rotated.heads == ((0, 1), (0, 4), (3, 1), (3, 4))


def test_its_json_is_plain(rotated: CopyTransfer) -> None:
    body = json.loads(json.dumps(rotated.to_json(), allow_nan=False))
    assert [(way["by"], way["match"]) for way in body["ways"]][:2] == [("output", "none"), ("output", "mean")]
    assert body["native"] is None and len(body["ways"]) == 6


def test_without_lenses_of_its_own_a_copy_has_no_such_difference(rotated: CopyTransfer) -> None:
    assert all(way.less_native is None for way in rotated.ways)
    for way in rotated.ways:
        below = [head.kl < rotated.mean_output.kl for head in way.heads]
        assert way.beat_mean_output == sum(below)


@pytest.fixture(scope="module")
def perturbed_cache(tmp_path_factory: pytest.TempPathFactory, change_demo: Callable[..., Path]) -> Path:
    """A cache of two shards of other rows, by the demo's model with noise on every matrix."""

    def add_noise(weights: dict[str, torch.Tensor]) -> None:
        torch.manual_seed(0)
        for name, value in weights.items():
            if value.dim() == 2 and ".h." in name:
                value += 0.2 * value.std() * torch.randn_like(value)

    folder = tmp_path_factory.mktemp("perturbed")
    model = change_demo(folder / "model", add_noise)
    settings = CacheSettings(
        seq_len=32, rows_per_shard=512, max_rows=1024, layers=(0, 3), top_k=8, tail_samples=8, exact_teacher=True
    )  # fmt: skip
    store = folder / "cache"
    write_cache(CacheRequest(model=str(model), corpus="demo", store=store, settings=settings, device="cpu"))
    return store


def test_other_text_is_said_and_all_of_it_is_judged_on(
    demo_lenses: Path, demo_cache: Path, perturbed_cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caches = (open_cache(demo_cache), open_cache(perturbed_cache))
    with caplog.at_level(logging.WARNING, logger="alens"):
        transferred = transfer_to_copy(
            load_lenses(demo_lenses), *caches, settings=TransferSettings(rows=ROWS)
        )
    assert "hold other rows of text" in caplog.text
    assert not transferred.same_rows and transferred.shards == (0, 1)
    way = transferred.way("value", "none")
    assert way.less_home.kl_interval is None and way.less_mean_output.kl_interval is not None
    assert way.less_home.cross_entropy_interval is None
    assert way.less_mean_output.cross_entropy_interval is not None
    assert way.kl == pytest.approx(sum(head.kl for head in way.heads) / 4)


class Opened:
    """Lenses and caches whose plans a test may change."""

    def __init__(self, lenses: Path, cache: Path, copy: Path) -> None:
        self.lenses, self.cache, self.copy = load_lenses(lenses), open_cache(cache), open_cache(copy)

    def check(self, native: Lenses | None = None) -> None:
        check_copy(self.lenses, self.cache, self.copy, native)


@pytest.fixture
def opened(demo_lenses: Path, demo_cache: Path, rotated_cache: Path) -> Opened:
    return Opened(demo_lenses, demo_cache, rotated_cache)


@pytest.mark.parametrize(
    ("name", "value"), [("n_heads", 3), ("d_vocab", 5000), ("architecture", "LlamaForCausalLM")]
)
def test_another_architecture_is_refused(opened: Opened, name: str, value: object) -> None:
    plan = opened.copy.plan
    opened.copy.plan = dataclasses.replace(plan, model=dataclasses.replace(plan.model, **{name: value}))
    with pytest.raises(RequestError, match=f"is not of a copy of the model of .*: {name} is {value}, not"):
        opened.check()


def test_another_tokenizer_is_refused(opened: Opened) -> None:
    plan = opened.copy.plan
    tokens = dataclasses.replace(plan.tokens, tokenizer_sha256="0" * 64)
    opened.copy.plan = dataclasses.replace(plan, tokens=tokens)
    with pytest.raises(RequestError, match="with another tokenizer"):
        opened.check()


def test_native_lenses_of_another_model_are_refused(opened: Opened) -> None:
    with pytest.raises(RequestError, match="has other weights"):
        opened.check(native=opened.lenses)


def test_native_lenses_of_another_site_are_refused(opened: Opened, demo_lenses: Path) -> None:
    native = load_lenses(demo_lenses)
    of_stream = {"site": "resid_post", "heads": (0,), "held_out": {}}
    native.record = dataclasses.replace(native.record, **of_stream, model=opened.copy.plan.model)
    with pytest.raises(RequestError, match="give lenses of one site"):
        opened.check(native)


@pytest.mark.parametrize(
    "change",
    [
        lambda plan: {"settings": dataclasses.replace(plan.settings, seed=1)},
        lambda plan: {"settings": dataclasses.replace(plan.settings, rows_per_shard=512)},
        lambda plan: {"tokens": dataclasses.replace(plan.tokens, sha256="0" * 64)},
    ],
    ids=["seed", "rows_per_shard", "tokens"],
)
def test_rows_are_the_same_where_tokens_shards_and_order_are(
    opened: Opened, change: Callable[[Plan], dict[str, Any]]
) -> None:
    assert same_rows_in(opened.cache, opened.copy)
    opened.copy.plan = dataclasses.replace(opened.copy.plan, **change(opened.copy.plan))
    assert not same_rows_in(opened.cache, opened.copy)


def test_the_same_model_is_said(opened: Opened, caplog: pytest.LogCaptureFixture) -> None:
    opened.copy = opened.cache
    with caplog.at_level(logging.WARNING, logger="alens"):
        opened.check()
    assert "are of the same model" in caplog.text


def as_of_the_copy(lenses: Path, copy: Cache) -> Lenses:
    """The demo's lenses as if they had been fitted to the copy: with the output matrices of its heads."""
    native, W_O_LHED = load_lenses(lenses), torch.from_numpy(copy.weights("W_O"))
    heads = list(native.record.heads)
    native._layers = {
        layer: dataclasses.replace(native.layer(layer), W_O_HED=W_O_LHED[layer, heads])
        for layer in native.record.layers
    }
    return native


def test_rows_that_either_fit_has_seen_are_never_judged_on(opened: Opened, demo_lenses: Path) -> None:
    native = as_of_the_copy(demo_lenses, opened.copy)
    body = {**native.record.cache, "plan": opened.copy.plan.identity, "held_out_shards": [0]}
    native.record = dataclasses.replace(native.record, model=opened.copy.plan.model, cache=body)
    with pytest.raises(RequestError, match="no shard of it was held out of every fit"):
        transfer_to_copy(opened.lenses, opened.cache, opened.copy, native=native)
    body["held_out_shards"] = [0, 5]
    transferred = transfer_to_copy(
        opened.lenses, opened.cache, opened.copy, native=native, settings=TransferSettings(rows=64)
    )
    assert transferred.shards == transferred.home_shards == (5,)
    assert transferred.native is not None and transferred.ways[0].less_native is not None


def test_native_lenses_that_lack_a_layer_are_told_before_the_work(opened: Opened, demo_lenses: Path) -> None:
    native = as_of_the_copy(demo_lenses, opened.copy)
    body = {**native.record.cache, "plan": opened.copy.plan.identity}
    figures = {"3": native.record.held_out["3"]}
    native._layers.clear()  # opened when there were two
    native.record = dataclasses.replace(
        native.record, model=opened.copy.plan.model, cache=body, layers=(3,), held_out=figures
    )
    work: list[Progress] = []
    with pytest.raises(RequestError, match="has no lens for layer 0"):
        transfer_to_copy(opened.lenses, opened.cache, opened.copy, native=native, report=work.append)
    assert not work


def test_each_figure_has_an_interval_of_its_own_rows() -> None:
    """KL of all rows, cross-entropy of those with a next token; whole sequences, the same for lens and baseline."""
    rows_G = np.full(30, 8.0)
    next_G, shift_G = rows_G - np.arange(30) % 2, np.linspace(-1, 1, 30)

    def judged(kl: float, cross_entropy: float) -> JudgedHeads:
        figures = (HeadFigures(kl=kl, cross_entropy=cross_entropy, top1_agreement=0.5),)
        return JudgedHeads(
            figures=figures, kl_G=(kl + shift_G) * rows_G, surprise_G=(cross_entropy + shift_G) * next_G
        )

    mean = judged(2.0, 4.0)
    compare = CopyBaselines(
        home=judged(1.0, 2.5), native=None, mean=mean, rows_G=rows_G, next_G=next_G, same_rows=True, seed=0
    )
    way = compare.way("value", "none", judged(1.25, 3.5))
    assert way.less_home.kl_interval == pytest.approx((0.25, 0.25))
    assert way.less_home.cross_entropy_interval == pytest.approx((1.0, 1.0))
    assert way.less_mean_output.kl_interval == pytest.approx((-0.75, -0.75))
    assert way.less_mean_output.cross_entropy_interval == pytest.approx((-0.5, -0.5))


def test_on_other_text_only_what_is_judged_on_the_copy_has_intervals_and_the_seed_draws_them() -> None:
    rows_G, random = np.full(30, 8.0), np.random.default_rng(0)
    figures = (HeadFigures(kl=1.0, cross_entropy=2.0, top1_agreement=0.5),)
    lens, other = (
        JudgedHeads(figures=figures, kl_G=random.normal(size=30), surprise_G=random.normal(size=30))
        for _ in range(2)
    )
    first, drawn_anew = (
        CopyBaselines(
            home=other, native=other, mean=other, rows_G=rows_G, next_G=rows_G, same_rows=False, seed=seed
        ).way("value", "none", lens)
        for seed in (0, 1)
    )
    assert first.less_home.kl_interval is None and first.less_home.cross_entropy_interval is None
    assert first.less_native is not None and first.less_native == first.less_mean_output
    drawn, other_draws = first.less_mean_output, drawn_anew.less_mean_output
    assert drawn.kl_interval is not None and drawn.cross_entropy_interval is not None
    assert drawn.kl_interval != other_draws.kl_interval
    assert drawn.cross_entropy_interval != other_draws.cross_entropy_interval
