"""`alens eval`: the figures of each head, and how it refuses."""

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from alens import EvaluateSettings, evaluate, load_lenses, open_cache
from alens.model.models import find, load_tokenizer
from alens.model.token_bytes import token_bytes
from alens.store import document

from .. import documents
from ..damage import flip
from ..judged import of_heads
from ..outcomes import refusal

Copy = Callable[[Path], Path]


def token_bytes_of_the_demo() -> Any:
    return token_bytes(load_tokenizer(find("demo"))[0], 4096)


def test_json_is_what_the_library_finds(run_alens: Any, demo_lenses: Path, demo_cache: Path) -> None:
    code, out, err = run_alens(
        "eval", demo_lenses, demo_cache, "--json", "--layers", "3", "--rows", "200", "--seed", "4"
    )
    assert code == 0, err
    expected = evaluate(
        load_lenses(demo_lenses),
        open_cache(demo_cache),
        settings=EvaluateSettings(layers=(3,), rows=200, seed=4),
        token_bytes_V=token_bytes_of_the_demo(),
    )
    assert json.loads(out) == expected.to_json()
    (first, _) = of_heads(out)
    assert first["bits_per_byte"] == pytest.approx(first["cross_entropy"] / 2.5, rel=0.3)


def test_every_figure_carries_the_name_of_its_reading(
    run_alens: Any, demo_lenses: Path, demo_cache: Path
) -> None:
    given = ("--rows", "100", "--layers", "3", "--baselines", "scaled-write,regression", "--json")
    readings = json.loads(run_alens("eval", demo_lenses, demo_cache, *given).stdout)["readings"]
    kls = {(one["layer"], one["head"], one["reading"]): one["kl"] for one in readings}
    assert all(isinstance(kl, float) for kl in kls.values())
    of_a_head = [reading for layer, head, reading in kls if (layer, head) == (3, 4)]
    assert of_a_head == ["lens", "mean-output", "scaled-write", "regression"]
    assert kls[3, 4, "mean-output"] == kls[3, 1, "mean-output"] == kls[None, None, "mean-output"]
    assert kls[3, 4, "scaled-write"] < kls[3, 4, "mean-output"] + 0.01


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (("--baselines", "random"), "lacks the residual stream: cache with --sites resid_post"),
        (("--baselines", "tuned-composition"), "it needs a Tuned Lens: give one with --tuned-lens"),
        (("--baselines", "nothing"), "one of unembedding, written, scaled-write"),
    ],
)
def test_a_baseline_that_cannot_be_had_is_refused(
    run_alens: Any, demo_lenses: Path, demo_cache: Path, given: tuple[str, ...], told: str
) -> None:
    outcome = run_alens("eval", demo_lenses, demo_cache, *given)
    assert outcome.code == 2 and told in refusal(outcome)


def test_names_of_readings_are_not_wrapped(run_alens: Any, demo_lenses: Path, demo_cache: Path) -> None:
    given = ("eval", demo_lenses, demo_cache, "--layers", "3", "--rows", "64")
    assert "unembedding mean " in run_alens(*given, env={"COLUMNS": "76"}).stdout


def test_a_figure_that_is_named_twice_is_one_column(
    run_alens: Any, demo_lenses: Path, demo_cache: Path
) -> None:
    given = ("eval", demo_lenses, demo_cache, "--layers", "3", "--rows", "64")
    once, twice = (run_alens(*given, "--figures", figures).stdout for figures in ("kl", "kl,kl"))
    assert once == twice and once


def test_the_tables_have_every_head_and_every_baseline(
    run_alens: Any, demo_lenses: Path, demo_cache: Path
) -> None:
    code, out, err = run_alens("eval", demo_lenses, demo_cache, env={"COLUMNS": "80"})
    assert code == 0, err
    evaluation = evaluate(load_lenses(demo_lenses), open_cache(demo_cache))
    assert "1,008 held-out rows of 16 sequences, exact teacher" in out
    for layer in (0, 3):
        for index, head in enumerate((1, 4)):
            (line,) = [line for line in out.splitlines() if line.startswith(f" {layer}.{head} ")]
            figures = evaluation.lens[layer][index]
            low, high = figures.intervals["kl"] or (0.0, 0.0)
            assert (
                f"{figures.kl:.3f} ±{(high - low) / 2:.3f}" in line
                and f"{figures.top10_agreement:.3f} ±" in line
            )
            assert f"{evaluation.unembedding[layer][index].kl:.3f}" in line
    mean = next(line for line in out.splitlines() if line.startswith("mean output "))
    assert f"{evaluation.mean_output.kl:.3f}" in mean and f"{evaluation.mean_output.entropy:.3f}" in mean
    assert any(line.startswith("the model ") for line in out.splitlines())
    wins = evaluation.wins("mean-output")
    counts = [
        line.split()[-3:] for line in out.splitlines() if line.startswith(("mean output", "unembedding "))
    ]
    assert counts[-2] == [str(wins.better), str(wins.surely_better), str(wins.better_apart)]
    assert counts[-1] == ["4", "4", "4"]
    assert f"4 lenses: {wins.better} beat the mean output, {wins.surely_better} surely" in out
    assert "…" not in out and max(map(len, out.splitlines())) <= 80


def test_figures_can_be_chosen(run_alens: Any, demo_lenses: Path, demo_cache: Path) -> None:
    outcome = run_alens("eval", demo_lenses, demo_cache, "--rows", "100", "--figures", "ece,bits")
    assert outcome.code == 0
    heads = outcome.stdout.split("lens of each head")[1]
    assert "ECE" in heads and "bits/B" in heads and "unemb." not in heads


@pytest.mark.parametrize("shown", ["kl", "ece", "gain-unembedding"])
@pytest.mark.parametrize("suffix", [".png", ".html"])
def test_a_heat_map_is_written(
    run_alens: Any, demo_lenses: Path, demo_cache: Path, tmp_path: Path, suffix: str, shown: str
) -> None:
    file = tmp_path / f"map{suffix}"
    options = ("--rows", "100", "--heat-map", file, "--heat-map-of", shown, "--json")
    outcome = run_alens("eval", demo_lenses, demo_cache, *options)
    assert outcome.code == 0, outcome.stderr
    if suffix == ".png":
        assert file.read_bytes().startswith(b"\x89PNG")
        return
    page = file.read_text()
    assert page.count("<td") == 4  # two layers, two heads
    plain = of_heads(outcome.stdout, "unembedding")
    for lens, unembedding in zip(of_heads(outcome.stdout), plain, strict=True):
        value = {
            "kl": lens["kl"],
            "ece": lens["calibration_error"],
            "gain-unembedding": -unembedding["lens_minus"]["kl"]["difference"],
        }[shown]
        assert f">{value:.3g}</td>" in page
    assert (shown == "gain-unembedding") == ("intervals apart" in page) == ('class="marked"' in page)


def test_a_model_that_is_gone_costs_bits_a_byte_and_one_line(
    run_alens: Any, demo_lenses: Path, demo_cache: Path, copy_of: Copy
) -> None:
    """The plan says where the model was; the lenses' files do not matter."""
    store = copy_of(demo_cache)
    with planned(store) as model:
        model["id"] = "/nowhere/model"
    outcome = run_alens("eval", demo_lenses, store, "--rows", "100", "--json")
    assert outcome.code == 0, outcome.stderr
    assert of_heads(outcome.stdout)[0]["bits_per_byte"] is None
    (line,) = [line for line in outcome.stderr.splitlines() if "bits per byte" in line]
    assert "bits per byte are left out: /nowhere/model does not exist" in line and line.count("--model") == 1
    again = run_alens("eval", demo_lenses, store, "--rows", "100", "--json", "--model", "demo")
    assert of_heads(again.stdout)[0]["bits_per_byte"] > 0


@contextlib.contextmanager
def planned(store: Path) -> Iterator[dict[str, Any]]:
    """The model's record in a plan, to be changed. The place of a model does not belong to a plan's identity."""
    body = document.decode((store / "plan.json").read_bytes(), "plan.json")
    yield body["model"]
    (store / "plan.json").write_bytes(document.encode(body))


def test_the_layers_logit_lens_has_the_models_own_norm(
    run_alens: Any, residual_cache: Path, tmp_path: Path
) -> None:
    fit = ("--steps", "3", "--batch-rows", "128", "--eval-rows", "496", "--device", "cpu")
    assert run_alens("fit", residual_cache, tmp_path / "heads", "--heads", "0", *fit).code == 0
    site = ("--site", "resid_post", "--lens", "tuned")
    assert run_alens("fit", residual_cache, tmp_path / "tuned", *site, *fit).code == 0
    outcome = run_alens(
        *("eval", tmp_path / "heads", residual_cache, "--tuned-lens", tmp_path / "tuned"),
        *("--heat-map", tmp_path / "map.html", "--heat-map-of", "gain-tuned-lens", "--json"),
    )
    assert outcome.code == 0, outcome.stderr
    body = json.loads(outcome.stdout)
    assert body["norm_is_the_models"] and list(body["summary"]["wins"])[-2:] == ["logit-lens", "tuned-lens"]
    layers = [one for one in body["readings"] if one["reading"] == "logit-lens" and one["head"] is None]
    assert [one["layer"] for one in layers] == [1, 2]
    without_model = evaluate(
        load_lenses(tmp_path / "heads"), open_cache(residual_cache), settings=EvaluateSettings(resamples=2)
    )
    for one in layers:
        assert one["kl"] == pytest.approx(without_model.logit_lens[one["layer"]].kl, rel=1e-6)
    assert "Tuned Lens" in (tmp_path / "map.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--layers", "1"), "has no lens for layer 1: it has layers 0, 3"),
        (("--layers", "3-1"), "'3-1' is not a list of numbers"),
        (("--figures", "kl,f1"), "there is no figure 'f1': take some of kl,ce,bits"),
        (("--seed", "-1"), "-1 is not in the range x>=0"),
        (("--heat-map", "map.pdf"), "map.pdf: a heat map is written as .png or .html"),
        (("--heat-map", "no/such/map.png"), "does not exist: make it, or name a file elsewhere"),
        (("--heat-map", "m.png", "--heat-map-of", "gain-tuned-lens"), "needs --tuned-lens LENSES"),
        (
            ("--heat-map", "m.png", "--heat-map-of", "gain-logit-lens"),
            "gives no Logit Lens beside these lenses",
        ),
        (("--heat-map", "m.png", "--heat-map-of", "f1"), "'f1' is not one of"),
        (("--tuned-lens", "nowhere"), "nowhere holds no lenses"),
        (("--model", "/nowhere"), "/nowhere does not exist"),
        (("--rows", "0"), "0 is not in the range x>=1"),
        (("--device", "tpu"), "device 'tpu' is unknown: take auto, cpu, cuda or cuda:N"),
        (("--device", "meta"), "device 'meta' is unknown: take auto, cpu, cuda or cuda:N"),
        (("--device", "cuda:99"), "device cuda:99 is not there"),
    ],
)
def test_a_wrong_option_is_refused_in_one_line(
    run_alens: Any, demo_lenses: Path, demo_cache: Path, arguments: tuple[str, ...], message: str
) -> None:
    assert message in refusal(run_alens("eval", demo_lenses, demo_cache, *arguments), 2)


def test_lenses_that_are_none_are_refused(run_alens: Any, demo_cache: Path, tmp_path: Path) -> None:
    line = refusal(run_alens("eval", tmp_path, demo_cache), 2)
    assert "holds no lenses (it has no lens.json)" in line


def test_a_store_that_is_none_is_refused(run_alens: Any, demo_lenses: Path, tmp_path: Path) -> None:
    assert "is not a cache" in refusal(run_alens("eval", demo_lenses, tmp_path), 2)


def test_lenses_of_another_model_are_refused(
    run_alens: Any, demo_lenses: Path, demo_cache: Path, copy_of: Copy
) -> None:
    lenses = copy_of(demo_lenses)
    documents.edit(lenses / "lens.json", lambda body: body["model"].update(weights_sha256="0" * 64))
    assert "has other weights" in refusal(run_alens("eval", lenses, demo_cache), 2)


def test_a_damaged_lens_file_is_named(
    run_alens: Any, demo_lenses: Path, demo_cache: Path, copy_of: Copy
) -> None:
    lenses = copy_of(demo_lenses)
    file = lenses / "layer-03.safetensors"
    file.write_bytes(file.read_bytes()[:-8])
    assert "layer-03.safetensors was altered" in refusal(run_alens("eval", lenses, demo_cache), 1)


def test_a_damaged_shard_is_named(run_alens: Any, demo_lenses: Path, demo_cache: Path, copy_of: Copy) -> None:
    store = copy_of(demo_cache)
    flip(store / "arrays.zarr/sites/attn.z/03/c.5.0.0", 999)
    line = refusal(run_alens("eval", demo_lenses, store), 1)
    assert "c.5.0.0" in line and "shard 5" in line
