"""`alens fit` with other designs, objectives, sites and configurations, end to end."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from alens import evaluate, load_lenses, open_cache
from alens.fit.objectives import OBJECTIVES
from alens.lens.designs import DESIGNS

from ..judged import of_heads

SMALL = ("--heads", "1", "--steps", "3", "--batch-rows", "64", "--eval-rows", "500", "--device", "cpu")
UNTRAINED = tuple(word for word in SMALL if word not in ("--steps", "3"))


@pytest.fixture
def fitted(run_alens: Any, demo_cache: Path, tmp_path: Path) -> Any:
    """`fitted(*options)` fits head 1 of layer 3 of the demo and gives the record."""

    def fit(*options: object) -> Any:
        small = UNTRAINED if "regression" in options else SMALL
        outcome = run_alens("fit", demo_cache, tmp_path / "lenses", "--layers", "3", *small, *options)
        assert outcome.code == 0, outcome.stderr
        return load_lenses(tmp_path / "lenses").record

    return fit


@pytest.mark.parametrize("name", [name for name in DESIGNS if name != "tuned"])
def test_every_design_of_attention_heads(
    fitted: Any, run_alens: Any, demo_cache: Path, tmp_path: Path, name: str
) -> None:
    options = ("--lens-option", "rank=2") if name == "low-rank" else ()
    record = fitted("--lens", name, *options)
    assert (record.design, record.form) == (
        name,
        "unembedded" if name in ("translator", "regression") else "affine",
    )
    assert record.fit["lens_options"] == ({"rank": 2} if options else {})
    outcome = run_alens("eval", tmp_path / "lenses", demo_cache, "--json")
    assert outcome.code == 0, outcome.stderr
    (head,) = of_heads(outcome.stdout)
    assert head["kl"] == pytest.approx(record.held_out["3"][0]["kl"], rel=0.2)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective(fitted: Any, name: str) -> None:
    record = fitted("--objective", name)
    assert record.objective == record.fit["objective"] == name
    assert record.fit["teacher"] == ("exact" if name == "reverse-kl" else "compressed")
    assert record.fit["steps"] == 3


def test_the_tuned_lens_on_the_stream_is_fitted_and_judged(
    run_alens: Any, residual_cache: Path, tmp_path: Path
) -> None:
    lenses = tmp_path / "lenses"
    sizes = ("--steps", 20, "--batch-rows", 128, "--eval-rows", 500, "--layers", "2", "--tolerance", 0)
    form = ("--site", "resid_post", "--lens", "tuned", "--objective", "reverse-kl")
    outcome = run_alens("fit", residual_cache, lenses, *sizes, *form)
    assert outcome.code == 0, outcome.stderr
    record = load_lenses(lenses).record
    assert (record.site, record.form, record.heads) == ("resid_post", "translated", (0,))
    model = record.model
    unembedding = load_file(lenses / "unembedding.safetensors")
    assert unembedding["W_U"].shape == (model.d_model, model.d_vocab)
    outcome = run_alens("eval", lenses, residual_cache, "--json")
    assert outcome.code == 0, outcome.stderr
    (head,) = of_heads(outcome.stdout)
    assert head["kl"] == pytest.approx(record.held_out["2"][0]["kl"], abs=0.05)
    start = evaluate(load_lenses(lenses), open_cache(residual_cache)).unembedding[2][0]  # the norm alone
    assert head["kl"] < start.kl


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--lens-option", "rank"), "'rank' is not of the form name=value"),
        (("--lens-option", "rank=2"), "lens linear has no option 'rank'"),
        (("--lens", "low-rank", "--lens-option", "rank=many"), "rank is 'many'"),
        (("--objective-option", "power=2"), "objective forward-kl has no option 'power'"),
        (("--objective", "reverse-kl", "--teacher", "compressed"), "take --teacher exact"),
        (("--objective", "no_such_file:Mine"), "cannot import no_such_file"),
        (("--site", "resid_post"), "does not hold resid_post: cache with --sites resid_post"),
        (("--lens", "tuned"), "take --site resid_post, or `translator`"),
        (("--top-k", "17"), "top_k is 17: the cache has targets with 16"),
        (("--rows", "0"), "rows is 0: it must be at least 1"),
        (("--tolerance", "-1"), "tolerance is -1.0"),
        (("--deepspeed", "none.json"), "cannot read none.json: No such file"),
    ],
)
def test_a_wrong_option_is_one_line_and_leaves_nothing_behind(
    run_alens: Any, demo_cache: Path, tmp_path: Path, options: tuple[str, ...], message: str
) -> None:
    outcome = run_alens("fit", demo_cache, tmp_path / "lenses", "--layers", "3", *SMALL, *options)
    assert outcome.code == 2 and message in outcome.stderr, outcome
    assert outcome.stderr.splitlines()[-1].startswith("alens: ") and "Traceback" not in outcome.stderr
    assert not (tmp_path / "lenses").exists()


def test_options_of_a_design_stand_in_a_table_of_the_config_file(fitted: Any, tmp_path: Path) -> None:
    config = tmp_path / "fit.toml"
    config.write_text('lens = "low-rank"\n[lens-option]\nrank = 3\n')
    assert fitted("--config", config).fit["lens_options"] == {"rank": 3}


def test_a_flag_beats_the_table_of_the_config_file(fitted: Any, tmp_path: Path) -> None:
    config = tmp_path / "fit.toml"
    config.write_text('lens = "low-rank"\n[lens-option]\nrank = 3\n')
    assert fitted("--config", config, "--lens-option", "rank=1").fit["lens_options"] == {"rank": 1}


def test_rows_and_top_k_are_obeyed(fitted: Any) -> None:
    record = fitted("--rows", 1500, "--top-k", 2, "--tail-samples", 3)
    assert record.cache["train_shards"] == [0, 1]
    assert (record.fit["rows"], record.fit["top_k"], record.fit["tail_samples"]) == (1500, 2, 3)


def test_a_design_of_ones_own_is_fitted_from_the_working_directory(
    fitted: Any, run_alens: Any, demo_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "own_design_of_a_test.py").write_text(
        "from alens.lens.designs.linear import Linear\n\n"
        "class Scaled(Linear):\n"
        "    def __init__(self, ground, *, scale=1.0):\n"
        "        super().__init__(ground)\n"
        "        self.scale = scale\n\n"
        "    def affine(self):\n"
        "        return self.weight * self.scale, self.bias\n"
    )
    record = fitted("--lens", "own_design_of_a_test:Scaled", "--lens-option", "scale=0.5")
    assert record.design == "own_design_of_a_test:Scaled" and record.form == "affine"
    assert run_alens("eval", tmp_path / "lenses", demo_cache).code == 0  # needs none of the user's code


def test_a_deepspeed_file_gives_the_stage_and_a_monitor(
    fitted: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from alens.fit import trainer

    stages: list[int] = []

    class Watched(trainer.Engine):
        def __init__(self, *given: Any, **named: Any) -> None:
            super().__init__(*given, **named)
            stages.append(self._engine.zero_optimization_stage())

    monkeypatch.setattr(trainer, "Engine", Watched)
    monitor = {"enabled": True, "output_path": str(tmp_path), "job_name": "watched"}
    body = {"zero_optimization": {"stage": 2}, "csv_monitor": monitor, "steps_per_print": 1}
    (tmp_path / "ds.json").write_text(json.dumps(body))
    fitted("--deepspeed", tmp_path / "ds.json")
    assert stages == [2]
    files = list((tmp_path / "watched").glob("*.csv"))
    assert files
    assert all(len(list(csv.reader(file.read_text().splitlines()))) > 1 for file in files)
