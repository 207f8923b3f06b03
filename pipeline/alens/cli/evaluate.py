"""`alens eval`: how well lenses read, beside the mean output and the unembedding."""

from pathlib import Path

import click

from alens.cli.parameters import NUMBERS, config_option, device_option, json_option, print_json


@click.command("eval", epilog="Example: alens eval layer-11 gpt2-cache --rows 65536")
@click.argument("lenses", type=click.Path(path_type=Path))
@click.argument("store", type=click.Path(path_type=Path))
@click.option("--layers", type=NUMBERS, help="Layers to judge.  [default: all that were fitted]")
@click.option("--rows", type=click.IntRange(1), help="Held-out rows at most.  [default: all]")
@click.option(
    "--held-out-by",
    type=click.Path(path_type=Path),
    metavar="LENSES",
    help="Judge on the shards that the fit of these lenses held out: figures of both can then be compared.",
)
@device_option
@json_option
@config_option
def command(
    lenses: Path,
    store: Path,
    layers: tuple[int, ...] | None,
    rows: int | None,
    held_out_by: Path | None,
    device: str,
    as_json: bool,
) -> None:
    """Judge LENSES on the cache STORE: forward KL, cross-entropy and top-1 agreement of each head.

    On the cache they were fitted on, the shards that the fit held out are used; on another cache of the
    same model, all shards: take one of other text, because lenses look better on rows they have seen.
    """
    from alens.cli.watch import watching
    from alens.device import torch_device
    from alens.evaluation.evaluate import Evaluation, evaluate
    from alens.lens.saved import load_lenses
    from alens.store.reader import open_cache

    with watching() as report:
        found: Evaluation = evaluate(
            load_lenses(lenses),
            open_cache(store),
            layers=layers,
            num_rows=rows,
            held_out_by=None if held_out_by is None else load_lenses(held_out_by),
            device=torch_device(device),
            report=report,
        )
    if as_json:
        print_json(found.to_json())
        return
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table

    table = Table(
        title=f"{found.rows:,} held-out rows, {found.teacher} teacher; KL and cross-entropy (CE) in nats",
        box=SIMPLE,
    )
    table.add_column("head", justify="right")
    for figure in ("KL", "CE", "top-1"):
        for reading in ("lens", "unembedding"):
            table.add_column(f"{figure}\n{reading}", justify="right")
    for layer, heads in found.lens.items():
        for head, lens, plain in zip(found.heads, heads, found.unembedding[layer], strict=True):
            table.add_row(
                f"{layer}.{head}",
                f"{lens.kl:.3f}",
                f"{plain.kl:.3f}",
                f"{lens.cross_entropy:.3f}",
                f"{plain.cross_entropy:.3f}",
                f"{lens.top1_agreement:.3f}",
                f"{plain.top1_agreement:.3f}",
            )
    mean = found.mean_output
    Console().print(table)
    click.echo(
        f"mean output (no lens): KL {mean.kl:.3f}, CE {mean.cross_entropy:.3f}, top-1 {mean.top1_agreement:.3f}"
    )
    kls = [head.kl for heads in found.lens.values() for head in heads]
    click.echo(
        f"lenses: KL mean {sum(kls) / len(kls):.4f}, worst {max(kls):.4f}; {sum(kl < mean.kl for kl in kls)} of {len(kls)} beat the mean output"
    )
