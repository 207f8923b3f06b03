"""The command line: one module a command, loaded when it is asked for. The only room that knows click.

Exit codes: 0 done; 2 the request is wrong; 1 it failed while running; 75 stopped by a signal or a
time limit after saving, run again to go on. Every error is one line.

The exit code is about the work. Lines that cannot be written (a closed stream, a full disk, a reader that has left)
neither end the work nor change the code; only where what is printed is itself the work, a lost result gives 1.

Every command is written in one way. Most of its options are made from a settings class (`SettingsOptions`); `command`
takes the options that only the command line has by name, and the others as `given`. Requests that make no sense are
refused first. The work, with its heavy imports, stands inside `stopping` (where it can be stopped) and `watching`.
Its result is printed last: by `show_result`, by `printed` where files are written too, or `aside` where the files are
the work. The text of a table stands in a module of its own.

plan.py            alens plan
plan_table.py      its estimate as text
cache.py           alens cache
effects.py         alens effects
jacobians.py       alens jacobians
fit.py             alens fit
sweep.py           alens sweep
evaluate.py        alens eval
eval_table.py      its figures as text and grid
effect_table.py    its figures beside effects as text
heads.py           alens heads
heads_table.py     its scores as text and grid
read.py            alens read
read_table.py      its reading as text
read_lines.py      the table with one line a head
read_details.py    the table with full lists
atlas.py           alens atlas
locate.py          alens locate
locate_table.py    its findings as text and grid
compare.py         alens compare
compare_table.py   its findings as text, grid and curves
inject.py          alens inject
inject_table.py    its findings as text and picture
basis.py           alens basis
basis_table.py     its findings as text and grid
transfer.py        alens transfer
transfer_table.py  its findings as text and grid
export.py          alens export
import_.py         alens import
publish.py         alens publish
info.py            alens info
info_text.py       what it prints
info_lenses.py     what it says of lenses
verify.py          alens verify
push.py            alens push
fidelity.py        alens fidelity
fidelity_table.py  its findings as text
options.py         options made from a settings class, and those that several commands share
value_types.py     lists of numbers and names, name=value, paths
config_file.py     --config
console.py         every line that is printed, made fit to be shown; output that never ends the work
screenful.py       how much of a long table is shown
tables.py          the one form of every table
watch.py           progress, logs, signals
progress_lines.py  progress as lines of a log, with the time that is left
progress_bars.py   progress as bars on a terminal
lacks.py           what the machine refused: memory, open files, threads
reference.py       writes docs/command-line.md
"""

import atexit
import errno
import gc
import importlib
import logging
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import click

from alens.cli import console
from alens.cli.lacks import forget, lack
from alens.errors import AlensError, RequestError, StoppedError
from alens.machine.allotment import wait_asleep

COMMANDS = {
    "plan": "Estimate rows, bytes, files and time of a cache before anything is written.",
    "cache": "Run a model once over a text and write what every head computes.",
    "effects": "Measure what the model loses without each head, on some rows of a cache.",
    "jacobians": "Measure how the residual stream moves with what each head computes.",
    "fit": "Train lenses from a cache, with no model loaded.",
    "sweep": "Train many variants of lenses from one read, and compare them in a table.",
    "eval": "Judge lenses on held-out text, beside baselines.",
    "heads": "Score every head of a model on what it does: no lenses, no cache.",
    "read": "Show which tokens each head writes on a prompt.",
    "atlas": "Write a page for every head over the rows of a cache, with an index.",
    "locate": "Rank heads by how far they raise some terms on prompts above control prompts.",
    "compare": "Rank heads by how differently they read two sets of prompts, with a detector.",
    "inject": "Add the direction of chosen tokens at a head, or take heads away, and see what the model does.",
    "basis": "Find the directions a lens rests on, and test them in the model.",
    "transfer": "Apply lenses to other heads, or to a fine-tuned copy of their model.",
    "export": "Write lenses as safetensors in the paper's form, with a model card.",
    "import": "Read published lenses, to judge and read them beside fitted ones.",
    "publish": "Prepare lenses for the Hugging Face hub, and upload them on request.",
    "info": "Show what a cache or a lens directory holds, and how much of a cache is written.",
    "verify": "Read every byte of a cache and name what is damaged.",
    "push": "Send a cache to an object store, whole shards at a time.",
    "fidelity": "Report what a cache's compression costs, and what other choices would.",
}
"""In the order of the work; the modules of `eval` and `import` are `evaluate` and `import_`."""

MODULES = {"eval": "evaluate", "import": "import_"}


class LazyGroup(click.Group):
    """Imports the module of a command only to run it, so that `alens --help` is instant."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"alens.cli.{MODULES.get(cmd_name, cmd_name)}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Example: alens cache demo demo demo-cache && alens fit demo-cache demo-lenses",
)
@click.version_option(package_name="alens", message="%(prog)s %(version)s")
def group() -> None:
    """Cache what attention heads compute, fit lenses to the cache, and read heads with the lenses."""


def main() -> None:
    """Run a command and exit with its code. A Ctrl-C while Python ends is ignored: nothing is left to stop."""
    console.install()
    wait_asleep()
    if logging.lastResort is not None:  # shows the warnings that come while no command watches
        logging.lastResort.setFormatter(console.OneLine())
    try:
        code = run(sys.argv[1:])
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    except KeyboardInterrupt:
        code = 130
    gc.freeze()  # Python looks for garbage once more at its end, for a second where a model library was imported
    _leave(code)


def _leave(code: int) -> None:
    """End the process with `code`. What stays in memory is left to the system: Python would take it apart first, for
    0.2 s and more where a model library was imported.

    What is registered to be done at exit is done. A process that still has a thread to wait for ends as Python ends.
    """
    waits = [thread for thread in threading.enumerate() if not thread.daemon]
    if waits != [threading.main_thread()]:
        sys.exit(code)
    try:
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def run(arguments: list[str]) -> int:
    """Run a command; its exit code. Prints errors as one line, without a traceback."""
    try:
        code = _run(arguments)
    except Exception as error:
        if (short := lack(error)) is None:
            raise
        code = _say(short, 1)
        forget(error)
    lost = console.unwritten()
    if code or lost is None:
        return code
    if lost.errno == errno.EPIPE:  # a reader such as `head` has what it wanted
        return 1
    return _say(f"the result could not be written to standard output: {lost.strerror}", 1)


def _run(arguments: list[str]) -> int:
    try:
        _check_working_directory()
        group.main(args=arguments or ["--help"], prog_name="alens", standalone_mode=False)
        return 0
    except StoppedError as error:
        return _say(error, 75)
    except AlensError as error:
        if lack(error):  # it was taken for something else
            raise
        return _say(error, 2 if isinstance(error, RequestError) else 1)
    except click.UsageError as error:
        at = f" (see: {error.ctx.command_path} --help)" if error.ctx else ""
        dashes = "; before a prompt or name that begins with -, put --" if _is_unknown(error) else ""
        message = error.format_message()
        return _say(f"{message.rstrip('.') + dashes if dashes else message}{at}", 2)
    except click.exceptions.Exit as error:
        return error.exit_code
    except click.ClickException as error:
        return _say(error.format_message(), 2)
    except (KeyboardInterrupt, click.Abort):
        return _say("stopped at once; what was committed or saved before is safe", 130)
    except OSError as error:
        if lack(error):
            raise
        return _say(f"{error.strerror or error}: {error.filename or 'no file named'}", 1)


def _check_working_directory() -> None:
    """Raises `RequestError` in a directory that was deleted: libraries ask for it, and their messages do not help."""
    try:
        Path.cwd()
    except FileNotFoundError:
        raise RequestError(
            "the working directory was deleted: cd to one that is there, then run it again"
        ) from None


def _is_unknown(error: click.UsageError) -> bool:
    """Whether a word that begins with - is not an option, in a command that takes names or prompts."""
    takes = error.ctx is not None and any(isinstance(p, click.Argument) for p in error.ctx.command.params)
    return takes and isinstance(error, click.NoSuchOption) and not error.option_name.startswith("--")


def _say(message: Any, code: int) -> int:
    console.tell(f"alens: {' '.join(str(message).split())}")
    return code
