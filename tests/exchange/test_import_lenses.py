"""Imported lenses are lens directories, judged and read beside fitted ones."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from alens import EvaluateSettings, ExportRequest, HeadReader, evaluate, load_lenses, open_cache
from alens.errors import DamageError, RequestError, RunError, StoppedError
from alens.exchange import export
from alens.exchange.import_lenses import import_lenses
from alens.exchange.request import ImportRequest
from alens.lens.record import FORMAT
from alens.model import models
from alens.model.models import LoadedModel

from .. import documents
from ..damage import flip

Publish = Callable[..., Path]
Copy = Callable[[Path], Path]


@pytest.fixture(autouse=True)
def one_model(model: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model is loaded once for all tests."""
    monkeypatch.setattr(models, "load", lambda source, **_: model)


def take(source: Path, lenses: Path, **more: object) -> Path:
    import_lenses(ImportRequest(source=source, lenses=lenses, model="demo", **more))
    return lenses


@pytest.mark.parametrize(
    ("form", "dtype", "tolerance"),
    [("paper", "float32", 1e-4), ("z", "float32", 0.0), ("z", "bfloat16", 1e-2), ("paper", "float16", 2e-2)],
)
def test_what_was_exported_comes_back(
    demo_lenses: Path, tmp_path: Path, form: str, dtype: str, tolerance: float
) -> None:
    lenses = load_lenses(demo_lenses)
    export.write(export.plan(lenses, ExportRequest(form=form, dtype=dtype)), tmp_path / "out")
    back = load_lenses(take(tmp_path / "out", tmp_path / "back"))
    for layer in (0, 3):
        given, imported = lenses.layer(layer), back.layer(layer)
        scale = float(given.weight_HEV.abs().max())
        torch.testing.assert_close(imported.weight_HEV, given.weight_HEV, rtol=0, atol=tolerance * scale)
        torch.testing.assert_close(imported.bias_HV, given.bias_HV, rtol=0, atol=tolerance * 20)
        assert torch.equal(imported.W_O_HED, given.W_O_HED)
        assert torch.equal(imported.mean_z_HE, given.mean_z_HE) and given.mean_z_HE.shape == (2, 32)
    assert torch.equal(back.log_mean_output(), lenses.log_mean_output())


def test_an_export_that_came_back_is_judged_on_the_rows_that_its_fit_held_out(
    demo_lenses: Path, demo_cache: Path, tmp_path: Path
) -> None:
    export.write(export.plan(load_lenses(demo_lenses), ExportRequest(layers=(3,))), tmp_path / "out")
    back, cache = load_lenses(take(tmp_path / "out", tmp_path / "back")), open_cache(demo_cache)
    result = evaluate(back, cache, settings=EvaluateSettings(rows=200))
    fitted = evaluate(load_lenses(demo_lenses), cache, settings=EvaluateSettings(layers=(3,), rows=200))
    assert result.shards == fitted.shards == (5,)
    for ours, theirs in zip(result.lens[3], fitted.lens[3], strict=True):
        assert ours.kl == pytest.approx(theirs.kl, rel=1e-4)
    assert result.mean_output == fitted.mean_output


def test_a_published_checkpoint_is_judged_and_read(
    checkpoint: Publish, demo_lenses: Path, demo_cache: Path, tmp_path: Path
) -> None:
    back = load_lenses(take(checkpoint(), tmp_path / "back"))
    record, cache = back.record, open_cache(demo_cache)
    assert (record.design, record.objective, record.held_out) == ("imported", None, {})
    assert record.fit["steps"] is None and record.cache["plan"] is None
    assert "summed before the loss" in record.fit["origin"]["training"]
    assert json.loads((tmp_path / "back" / "lens.json").read_text())["format"] == FORMAT
    everywhere = evaluate(back, cache, settings=EvaluateSettings(rows=100))
    assert everywhere.shards == cache.shards
    beside = evaluate(back, cache, settings=EvaluateSettings(rows=100), held_out_by=load_lenses(demo_lenses))
    assert beside.shards == (5,)
    # No mean output was published, so the cache's own is the baseline.
    fitted = evaluate(load_lenses(demo_lenses), cache, settings=EvaluateSettings(rows=100))
    assert beside.mean_output.kl == pytest.approx(fitted.mean_output.kl, rel=0.05)
    assert beside.mean_output != fitted.mean_output  # its mean is over the rows of the fit
    reading = HeadReader(back, device="cpu").read("He was", heads=(0,), top=2)
    assert [score.lift for score in reading.heads[0].lens] == [None, None]


def test_rows_that_lenses_of_another_cache_held_out_are_nothing_here(
    demo_lenses: Path, stream_cache: Path
) -> None:
    lenses = load_lenses(demo_lenses)
    with pytest.raises(RequestError, match=r"was not fitted on .*: it held out no shards of it"):
        evaluate(lenses, open_cache(stream_cache), settings=EvaluateSettings(layers=(0,)), held_out_by=lenses)


def test_a_tuned_lens_is_judged_and_read(
    tuned: Publish, stream_cache: Path, model: LoadedModel, tmp_path: Path
) -> None:
    back = load_lenses(take(tuned(), tmp_path / "back", layer=2))
    assert (back.record.site, back.record.form, back.record.layers) == ("resid_post", "translated", (2,))
    cache = open_cache(stream_cache)
    result = evaluate(back, cache, settings=EvaluateSettings(rows=100))
    assert (
        result.lens[2][0].kl < result.mean_output.kl
    )  # small translators: near the Logit Lens of the last layers
    reader = HeadReader(back, device="cpu")
    reading = reader.read("He was a", top=3)
    (head,) = reading.heads
    assert (head.layer, head.head, len(head.lens)) == (2, 0, 3)


def test_the_unembedding_of_the_residual_stream_is_the_logit_lens(
    tuned: Publish, model: LoadedModel, tmp_path: Path
) -> None:
    reader = HeadReader(load_lenses(take(tuned(), tmp_path / "back", layer=2)), device="cpu")
    head = reader.read("He was a", top=1).heads[0]
    tokens = torch.tensor([reader.tokens("He was a")])
    with torch.no_grad():
        _, seen = model.bridge.run_with_cache(tokens, names_filter="blocks.2.hook_resid_post")
        h_D = seen["blocks.2.hook_resid_post"][0, -1]
        probs_V = (model.bridge.ln_final(h_D) @ model.W_U_DV + model.b_U_V).softmax(-1)
    assert head.unembedding[0].probability == pytest.approx(float(probs_V.max()), rel=1e-3)


def test_nothing_known_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    for source in (tmp_path, tmp_path / "notes.txt"):
        with pytest.raises(RequestError, match="is nothing that alens imports"):
            take(source, tmp_path / "back")
    with pytest.raises(RequestError, match="nowhere does not exist"):
        take(tmp_path / "nowhere", tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_a_place_that_is_taken_is_left_alone(checkpoint: Publish, demo_lenses: Path, copy_of: Copy) -> None:
    root = copy_of(demo_lenses)
    before = sorted(root.rglob("*"))
    with pytest.raises(RequestError, match="is not empty"):
        take(checkpoint(), root)
    assert sorted(root.rglob("*")) == before


def exported(demo_lenses: Path, out: Path) -> Path:
    export.write(export.plan(load_lenses(demo_lenses), ExportRequest(form="z")), out)
    return out


@pytest.mark.parametrize("name", ["layer-03.safetensors", "output.safetensors", "mean-z.safetensors"])
def test_an_altered_or_missing_file_of_an_export_is_named(
    demo_lenses: Path, tmp_path: Path, name: str
) -> None:
    file = exported(demo_lenses, tmp_path / "out") / name
    flip(file, -1)
    with pytest.raises(DamageError, match=rf"{name} was altered"):
        take(tmp_path / "out", tmp_path / "back")
    file.unlink()
    with pytest.raises(DamageError, match=rf"{name} is missing"):
        take(tmp_path / "out", tmp_path / "back")
    assert not (tmp_path / "back").exists()


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"version": 4}, RequestError, "has version 4; this alens reads version 1 and 2 and 3"),
        ({"model": {"id": "gpt2", "weights_sha256": "0"}}, RequestError, "holds lenses of gpt2, and demo has other weights"),
        ({"model": {"config": {"n_layer": 9}}}, RequestError, "holds lenses of demo, and demo has another configuration"),
        ({"model": {"owner": "me"}}, DamageError, r"config\.json is not whole"),
        ({"model": None}, DamageError, r"config\.json is not whole"),
        ({"layers": []}, DamageError, r"config\.json is not whole \(layers is \[\], of 4, each once"),
        ({"layers": [9]}, DamageError, r"layers is \[9\], of 4"),
        ({"heads": ["../x"]}, DamageError, r'heads\.0 is "\.\./x": input should be a valid integer'),
        ({"fit": {}}, DamageError, r"fit\.min_position is None: input should be"),
        ({"files": {"layer-03.safetensors": 5}}, DamageError, r"files\.layer-03\.safetensors is 5"),
        ({"mean_output_kl": float("nan")}, DamageError, r"mean_output_kl is NaN"),
        ({"site": "nowhere", "heads": [0]}, DamageError, r"site is 'nowhere'"),
        ({"form": "paper"}, DamageError, r"has \(32, 4096\) for head.1.weight, config.json says \(192, 4096\)"),
        ({"heads": [0]}, DamageError, r"has no tensor head\.0\.weight"),
    ],
)  # fmt: skip
def test_a_config_that_does_not_fit_is_named(
    demo_lenses: Path, tmp_path: Path, changes: dict[str, object], kind: type[Exception], message: str
) -> None:
    config = exported(demo_lenses, tmp_path / "out") / "config.json"
    if isinstance(model := changes.get("model"), dict):  # field by field
        changes = {**changes, "model": {**documents.read(config)["model"], **model}}
    documents.edit(config, lambda body: body.update(changes))
    with pytest.raises(kind, match=message):
        take(tmp_path / "out", tmp_path / "back")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_layer_that_was_not_exported_is_refused(demo_lenses: Path, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="has no lens for layer 1: it has layers 0, 3"):
        take(exported(demo_lenses, tmp_path / "out"), tmp_path / "back", layer=1)


def test_a_disk_that_fills_up_leaves_nothing(
    checkpoint: Publish, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = checkpoint()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(RunError, match="No space left on device"):
        take(path, tmp_path / "back")
    assert list(tmp_path.iterdir()) == [path]


def test_a_stopped_import_leaves_nothing(checkpoint: Publish, tmp_path: Path) -> None:
    path = checkpoint()
    request = ImportRequest(source=path, lenses=tmp_path / "back", model="demo")
    with pytest.raises(StoppedError, match="nothing was written"):
        import_lenses(request, should_stop=lambda: True)
    assert list(tmp_path.iterdir()) == [path]


def test_a_choice_of_weights_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="it must be one of auto, raw, processed"):
        ImportRequest(source=tmp_path, lenses=tmp_path, model="demo", weights="folded")
