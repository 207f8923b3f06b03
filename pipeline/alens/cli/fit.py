"""`alens fit`: stage two from the command line; torchrun, deepspeed and srun start it through `-m alens`."""

import os
from typing import Any

import click

from alens.cli.console import aside, show
from alens.cli.parameters import MINUTES, NUMBERS, OPTIONS, PathName, chosen, config_option, layers_option
from alens.fit.objectives import OBJECTIVES
from alens.fit.settings import TEACHERS, FitSettings
from alens.lens.designs import DESIGNS
from alens.store.schema import ATTN_Z, FURTHER_SITES


@click.command(
    "fit",
    epilog="Example: alens fit gpt2-cache layer-11 --layers 11; on 4 GPUs: torchrun --nproc-per-node 4 -m alens fit gpt2-cache all --zero 2",
)
@click.argument("store", type=PathName())
@click.argument("lenses", type=PathName())
@layers_option("fit, such as 0,2,5-7", default="all that are cached")
@click.option("--heads", "--head", "heads", type=NUMBERS, help="Heads to fit in each layer.  [default: all]")
@click.option(
    "--site",
    type=click.Choice((ATTN_Z, *FURTHER_SITES)),
    default=FitSettings.site,
    show_default=True,
    help="What the lenses read.",
)
@click.option(
    "--lens",
    default=FitSettings.lens,
    show_default=True,
    metavar="NAME",
    help=f"Design of the lens: {', '.join(DESIGNS)}, or module:Class.",
)
@click.option(
    "--lens-option",
    "lens_options",
    type=OPTIONS,
    multiple=True,
    help="An option of the design, such as rank=8.",
)
@click.option(
    "--objective",
    default=FitSettings.objective,
    show_default=True,
    metavar="NAME",
    help=f"The loss: {', '.join(OBJECTIVES)}, or module:Class.",
)
@click.option(
    "--objective-option", "objective_options", type=OPTIONS, multiple=True, help="An option of the objective."
)
@click.option(
    "--teacher",
    type=click.Choice(TEACHERS),
    help="Targets to fit to.  [default: what the objective takes first]",
)
@click.option("--top-k", type=int, help="Use so many of the cached top k.  [default: all]")
@click.option("--tail-samples", type=int, help="Use so many of the cached tail samples.  [default: all]")
@click.option("--rows", type=int, help="Train on so many rows at most.  [default: all]")
@click.option("--steps", type=int, help="Steps to take at most.  [default: by epochs]")
@click.option(
    "--epochs",
    type=float,
    default=FitSettings.epochs,
    show_default=True,
    help="Passes over the training rows at most.",
)
@click.option(
    "--batch-rows",
    type=int,
    default=FitSettings.batch_rows,
    show_default=True,
    help="Rows a step, over all processes.",
)
@click.option(
    "--lr",
    type=float,
    help="Learning rate of the first steps; it falls with their root.  [default: the design's]",
)
@click.option(
    "--tolerance",
    type=float,
    default=FitSettings.tolerance,
    show_default=True,
    help="Stop a lens that has no more than this share of its gain over the mean output left; 0: take all steps.",
)
@click.option(
    "--zero", type=click.IntRange(0, 3), help="DeepSpeed ZeRO stage.  [default: of --deepspeed, else 0]"
)
@click.option(
    "--deepspeed",
    type=PathName(dir_okay=False),
    metavar="FILE.json",
    help="DeepSpeed configuration: partitioning, offload, bf16, monitors.",
)
@click.option(
    "--min-position",
    type=int,
    default=FitSettings.min_position,
    show_default=True,
    help="Skip rows at earlier positions of a sequence.",
)
@click.option(
    "--eval-rows",
    type=int,
    default=FitSettings.eval_rows,
    show_default=True,
    help="Rows for held-out figures; whole shards are set aside, of held-out documents where documents are known.",
)
@click.option(
    "--checkpoint-every",
    type=click.IntRange(1),
    default=500,
    show_default=True,
    help="Steps between checkpoints.",
)
@click.option("--max-minutes", type=MINUTES, help="Save and stop after so many minutes (exit code 75).")
@click.option("--seed", type=int, default=FitSettings.seed, show_default=True, help="Of the order of shards.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
@config_option
def command(**given: Any) -> None:
    """Train lenses from the cache STORE and write them to the directory LENSES.

    No model is loaded. Run it again to go on from the newest checkpoint. With none of RANK, WORLD_SIZE, ...
    set, one process runs alone; torchrun, deepspeed and srun set them for several.
    """
    from alens.cli.watch import speaks_for_all, stopping, watching

    # torch's own lines, with its stack, for each connection that is lost: alens says in one line what that means
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    options = {name: dict(given[name]) for name in ("lens_options", "objective_options")}
    settings = FitSettings(**{**chosen(FitSettings, given), **options})
    with stopping(given["max_minutes"]) as should_stop, watching() as report:
        from alens.fit.settings import FitRequest
        from alens.fit.training_loop import fit_lenses

        request = FitRequest(
            store=given["store"],
            lenses=given["lenses"],
            settings=settings,
            zero=given["zero"],
            deepspeed=given["deepspeed"],
            device=given["device"],
            checkpoint_every=given["checkpoint_every"],
        )
        summary = fit_lenses(request, report=report, should_stop=should_stop)
    if speaks_for_all():
        record = summary.record
        heads = [head["kl"] for layer in record.held_out.values() for head in layer]
        with aside():
            if summary.steps_taken:
                show(
                    f"took {summary.steps_taken:,} steps of {settings.batch_rows:,} rows in {summary.seconds:.1f} s "
                    f"({summary.rows / summary.seconds:,.0f} rows/s; waited {100 * summary.waited_s / summary.seconds:.1f} % for data)"
                )
            show(
                f"{len(heads)} lenses in {summary.lenses}: held-out KL mean {sum(heads) / len(heads):.4f}, worst {max(heads):.4f} nats"
                + ("" if record.mean_output_kl is None else f" (mean output {record.mean_output_kl:.4f})")
                + f"; {_endings(record)}"
            )


def _endings(record: Any) -> str:
    """How many lenses ended how, and what is known to help."""
    fit, lenses = record.fit, len(record.layers) * len(record.heads)
    silent = {
        f"{layer}.{head}"
        for layer in record.layers
        for head in record.heads
        if record.says_nothing(layer, head)
    }
    told = [f"{len(fit['converged'])} had converged"]
    if rose := fit.get("rose"):
        told.append(f"{len(rose)} rose and are kept as they were at their best")
    if diverged := fit.get("diverged"):
        told.append(f"{len(diverged)} diverged: take a lower --lr")
    if silent:
        told.append(f"{len(silent)} say nothing")
    best = fit.get("best_step", {})
    falling = sum(
        step == fit["steps"] and name not in fit["converged"] and name not in silent
        for name, step in best.items()
    )
    if falling and fit["steps"] == fit["most_steps"]:
        told.append(
            f"{falling} of {lenses} were best at the last step: more --epochs, or more rows, may gain"
        )
    return "; ".join(told)
