"""`alens push`: a cache to an object store, from the command line."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from alens.cli.console import aside, show, show_result
from alens.cli.options import json_option
from alens.cli.value_types import PathName, not_empty
from alens.cli.watch import stopping, watching
from alens.pictures.numbers import duration, number_of, size

if TYPE_CHECKING:
    from alens.store.push import Pushed


@click.command("push", epilog="Example: alens push gpt2-cache s3://my-bucket/gpt2-cache")
@click.argument("store", type=PathName())
@click.argument("to", metavar="s3://BUCKET/PREFIX", callback=not_empty)
@click.option("--dry-run", is_flag=True, help="Only say what would be sent.")
@json_option
def command(store: Path, to: str, dry_run: bool, as_json: bool) -> None:
    """Send the cache STORE to an object store, with its effects and Jacobians.

    STORE may be sealed, or still be written: its committed shards are sent, and the next push sends those that came since.
    A shard counts there once its record has arrived, after all its files. Run the same command again to resume: what is
    there with the right size and hash is not sent again. Another cache at this place is never overwritten. Several
    machines may push their shards of one plan; the push that finds all of them there seals the cache. It needs
    alens[s3], and the usual variables AWS_*.
    """

    with stopping() as should_stop, watching() as report:
        from alens.store.push import push_cache

        pushed = push_cache(store, to, dry_run=dry_run, report=report, should_stop=should_stop)
    with aside():
        show_result(pushed, lambda: _show(pushed), as_json=as_json)


def _show(pushed: "Pushed") -> None:
    verb = "would send" if pushed.dry_run else "sent"
    measured = (
        f" and {number_of(pushed.measured_sent, 'file')} of effects or Jacobians"
        if pushed.measured_sent
        else ""
    )
    took = "" if pushed.dry_run else f" in {duration(pushed.seconds)}"
    show(
        f"{verb} {number_of(pushed.shards_sent, 'shard')}{measured}, {size(pushed.bytes_sent)}{took}; "
        f"{number_of(pushed.shards_there, 'shard')} of {pushed.shards:,} were there"
    )
    if not pushed.dry_run:
        show(
            f"sealed: {pushed.to}" if pushed.sealed else f"not sealed yet: shards are missing at {pushed.to}"
        )
