"""`alens eval`: how well lenses read, beside baselines."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from alens.cli.config_file import config_option
from alens.cli.console import printed
from alens.cli.eval_table import FIGURES, GAINS, SHOWN, head_grid, show_evaluation
from alens.cli.options import (
    HEADS,
    LAYERS,
    STAGE,
    SettingsOptions,
    heat_map_option,
    json_option,
    model_options,
)
from alens.cli.value_types import NAMES, PathName
from alens.cli.watch import starting, watching
from alens.errors import RequestError
from alens.evaluation.settings import EvaluateSettings, HeadSort
from alens.store.stage_settings import StageSettings

if TYPE_CHECKING:
    import torch

    from alens.job.progress import Report
    from alens.lens.lenses import Lenses
    from alens.reading.model_parts import ModelParts
    from alens.store.cache_reader import Cache

log = logging.getLogger(__name__)

EVALUATE = SettingsOptions(EvaluateSettings, without=("resamples",), layers=LAYERS, heads=HEADS)


@click.command("eval", epilog="Example: alens eval layer-11 gpt2-cache --rows 65536 --heat-map layer-11.png")
@click.argument("lenses", type=PathName())
@click.argument("store", type=PathName())
@EVALUATE
@click.option(
    "--held-out-by",
    type=PathName(),
    metavar="LENSES",
    help="Judge on the shards that the fit of these lenses held out, so that figures of both can be compared.",
)
@click.option(
    "--tuned-lens",
    type=PathName(),
    metavar="LENSES",
    help="A further baseline: lenses fitted with --lens tuned --site resid_post.",
)
@click.option(
    "--also",
    type=PathName(),
    metavar="LENSES",
    multiple=True,
    help="Further lenses of the same heads to judge beside, such as `--lens regression`, once or more. Their readings "
    "are named by their design.",
)
@click.option(
    "--figures",
    type=NAMES,
    default=SHOWN,
    show_default=True,
    help=f"Columns of the table of heads, of {','.join(FIGURES)}.",
)
@click.option(
    "--sort",
    type=click.Choice(get_args(HeadSort)),
    help="Which heads come first in tables: those whose lens gains most over the mean output, whose KL is lowest, or whose measured "
    "effect is largest; or layer by layer.  [default: gain, and effect in the table of effects]",
)
@click.option(
    "--all",
    "all_heads",
    is_flag=True,
    help="Show all heads and layers in tables, and not the first 20 heads. --json always has all.",
)
@heat_map_option("one figure of all heads")
@click.option(
    "--heat-map-of",
    type=click.Choice([*FIGURES, *GAINS]),
    default="kl",
    show_default=True,
    help="Which figure; a gain is the KL of a baseline minus that of the lens.",
)
@STAGE
@model_options
@json_option
@config_option
def command(
    lenses: Path,
    store: Path,
    held_out_by: Path | None,
    tuned_lens: Path | None,
    also: tuple[Path, ...],
    figures: tuple[str, ...],
    sort: HeadSort | None,
    all_heads: bool,
    heat_map: Path | None,
    heat_map_of: str,
    model: str | None,
    device: str,
    as_json: bool,
    **given: Any,
) -> None:
    """Judge each head of LENSES on the cache STORE, beside baselines; docs/metrics.md defines the figures.

    On the cache of their fit, lenses are judged on the shards that the fit held out. On another cache of the same
    model, text that the fit trained on is left out, by document where both caches know documents. Where that text
    cannot be identified, all rows are used and a warning says so: lenses look better on rows they were fitted on.

    Baselines are the mean output, the unembedding of the head, and the mean output with a fitted scalar times what the
    head writes; where the cache has the site resid_post, the Logit Lens of the layer; with --tuned-lens, the Tuned Lens
    of the layer, and what it says of each head's output. Others cost more and are asked for: --baselines regression is
    fitted in closed form on shards that are not judged, and random the same on random directions of the residual
    stream; --also takes lenses of another fit. Where the cache has effects (alens effects), every reading is also held
    against what the model loses without the head. Intervals are 95 % bootstrap
    intervals over documents, or over sequences where documents are not known. Bits per byte need the model's
    tokenizer: --model says where it is.
    """

    figures = tuple(dict.fromkeys(figures))
    unknown = [name for name in figures if name not in FIGURES]
    if unknown:
        raise RequestError(f"there is no figure {unknown[0]!r}: take some of {','.join(FIGURES)}")
    with watching() as report:
        with starting():
            from alens.evaluation.evaluate import evaluate
            from alens.lens.lenses import load_lenses
            from alens.machine.device import torch_device
            from alens.store.cache_reader import open_cache
            from alens.store.effect_reader import measured

        settings = EvaluateSettings(**EVALUATE.values(given))
        opened, cache, where = (
            load_lenses(lenses),
            open_cache(store, StageSettings(**STAGE.values(given))),
            torch_device(device),
        )
        tuned = None if tuned_lens is None else load_lenses(tuned_lens)
        if heat_map is not None:
            _check_heat_map(heat_map, heat_map_of, opened, cache, tuned, settings.baselines)
        if sort == "effect" and not measured(cache)[0]:
            raise RequestError(f"{store} has no effects to sort by: `alens effects {store}` measures them")
        opened.check_model(cache.plan.model, f"the model of {cache.root}")
        parts = _model(opened, cache, model, where, report)
        if heat_map is not None and heat_map_of == "bits" and parts.token_bytes_V is None:
            raise RequestError("there are no bits per byte to draw: say with --model where the model is")
        evaluation = evaluate(
            opened,
            cache,
            settings=settings,
            held_out_by=None if held_out_by is None else load_lenses(held_out_by),
            tuned_lens=tuned,
            also=[load_lenses(path) for path in also],
            final_norm=parts.final_norm,
            token_bytes_V=parts.token_bytes_V,
            device=where,
            report=report,
        )
        if evaluation.top_tokens < 10:
            log.info(
                "the cache holds %d top tokens a row: top-10 agreement is of these", evaluation.top_tokens
            )
    with printed(
        evaluation,
        lambda: show_evaluation(evaluation, figures, sort=sort, all_heads=all_heads),
        as_json=as_json,
    ):
        if heat_map is not None:
            from alens.pictures.heat_map import write

            write(heat_map, head_grid(evaluation, heat_map_of))


def _model(
    lenses: "Lenses", cache: "Cache", model: str | None, device: "torch.device", report: "Report"
) -> "ModelParts":
    """The parts of the model that can be loaded; the log says which cannot, and what is left out."""
    from alens.reading.model_parts import find_model_parts
    from alens.store.schema import RESIDUAL_STREAM

    sites = (lenses.record.site, *(cache.plan.settings.sites or ()))
    with_norm = RESIDUAL_STREAM in sites and cache.plan.model.final_norm is None  # else the cache keeps it
    parts = find_model_parts(cache.plan, model=model, device=device, with_norm=with_norm, report=report)
    if parts.lacking is not None:
        left_out = "bits per byte are left out"
        if with_norm and parts.final_norm is None:
            left_out += ", and the Logit Lens has no gain and offset of the last norm"
        log.info("%s: %s", left_out, parts.lacking)
    return parts


def _check_heat_map(
    path: Path,
    figure: str,
    lenses: "Lenses",
    cache: "Cache",
    tuned: "Lenses | None",
    baselines: tuple[str, ...] | None,
) -> None:
    """Raises `RequestError`, before the work, for a picture that cannot be written or would have nothing to show."""
    from alens.pictures.heat_map import check_path
    from alens.store.schema import RESIDUAL_STREAM

    check_path(path)
    if figure in ("gain-tuned-lens", "gain-tuned-composition") and tuned is None:
        raise RequestError(f"--heat-map-of {figure} needs --tuned-lens LENSES")
    if figure == "gain-random" and "random" not in (baselines or ()):
        raise RequestError("--heat-map-of gain-random needs --baselines random")
    in_cache = RESIDUAL_STREAM in (cache.plan.settings.sites or ())
    if figure == "gain-logit-lens" and (not in_cache or lenses.record.site == RESIDUAL_STREAM):
        raise RequestError(
            f"{cache.root} gives no Logit Lens beside these lenses: it needs a cache with --sites resid_post, "
            "and lenses of another site"
        )
