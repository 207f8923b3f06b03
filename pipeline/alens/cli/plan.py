"""`alens plan`: what a cache would take, from the command line.

When the cache does not fit, everything is printed and then the exit code is 1, as that of `alens cache` on
a full disk: `alens plan ... && alens cache ...` in a job script must not start a cache that cannot be finished.
"""

from pathlib import Path
from typing import Any

import click

from alens.cli.cache import cache_options, cache_request
from alens.cli.config_file import config_option
from alens.cli.console import show_json
from alens.cli.options import HEADS, json_option
from alens.cli.value_types import HEAD_LIST, PathName, not_empty
from alens.cli.watch import starting, watching
from alens.errors import RequestError, RunError


@click.command(
    "plan",
    epilog="Example: alens plan gpt2 bookcorpus gpt2-cache --max-rows 20000000 --layers 8-11 --workers 8",
)
@click.argument("model", callback=not_empty)
@click.argument("corpus", callback=not_empty)
@click.argument("store", type=PathName(), required=False)
@cache_options
@click.option("--workers", type=int, help="Jobs that share the work.  [default: 1, or N of --worker]")
@click.option(
    "--worker", default="0/1", metavar="I/N", help="As for `alens cache`: the estimate is for N workers."
)
@click.option(
    "--max-minutes", type=float, help="As for `alens cache`: also say how many such runs a worker needs."
)
@click.option(
    *HEADS.names,
    type=HEAD_LIST,
    help="Heads that you will fit: 0,3 in each layer, or by name, such as 18.6,24.4,17.3-5.  [default: all that are cached]",
)
@click.option(
    "--probe-seconds",
    type=float,
    default=15.0,
    show_default=True,
    help="CPU seconds that loading the model and all measurements may take together, roughly.",
)
@json_option
@config_option
def command(**given: Any) -> None:
    """Estimate the rows, bytes, files and hours of a cache before anything is written in STORE.

    It takes the arguments of `alens cache`, and refuses what `alens cache` would refuse. Without STORE it looks at
    the file system of the current directory. To measure the disk it writes up to 256 MB into a file without a name,
    in the nearest directory above STORE that exists. Exit code 1 when the cache does not fit.
    """
    from alens.job.worker import parse_worker

    store, max_minutes = given["store"], given["max_minutes"]
    if max_minutes is not None and not max_minutes > 0:
        raise RequestError(f"max_minutes is {max_minutes}: it must be above 0")
    workers = given["workers"] if given["workers"] is not None else parse_worker(given["worker"]).count
    with watching() as report:
        with starting():
            from alens.cli.plan_table import show_plan
            from alens.planning.estimate_cache import estimate_cache

        request = cache_request({**given, "store": store or Path.cwd()})
        estimate = estimate_cache(
            request,
            store=store,
            workers=workers,
            max_minutes=max_minutes,
            heads=given["heads"],
            probe_s=given["probe_seconds"],
            report=report,
        )
    body = estimate.to_json()
    if given["as_json"]:
        show_json(body)
    else:
        show_plan(body)
    if shortfall := estimate.space.shortfall():
        raise RunError(f"{shortfall}: make room, or ask for fewer rows, layers or sites")
