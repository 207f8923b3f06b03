"""`python -m alens.cli.reference`: the command-line reference as Markdown, from the commands themselves.

In: the click commands of `alens.cli`. Out: Markdown on standard output. `make docs` writes
`docs/command-line.md` with it, and a test compares the two, so that the page cannot fall behind the help.
"""

import re

import click

from alens.cli import COMMANDS, group
from alens.cli.console import show

EXIT_CODES = {
    0: "done",
    1: "it failed while running: no space, no permission, damaged files",
    2: "the request is wrong; nothing was changed",
    75: "stopped by a signal or by `--max-minutes` after saving: run the same command again to go on",
    130: "stopped at once by a second Ctrl-C; what was committed or saved before is safe",
}

INTRODUCTION = """\
# Command line

Written by `make docs` from the help texts. Change those, not this page.

Every command prints its own help with `-h` or `--help`; `alens --version` prints the version. \
`python -m alens` is the same program: launchers such as torchrun start it that way.

## Exit codes

| code | meaning |
| --- | --- |
{exit_codes}

An error is one line on standard error: what is wrong, where, and what to do about it.

The exit code is about the work. A command goes on when a line cannot be written because a stream is closed, a disk is \
full or the reader has left. `cache`, `fit`, `sweep`, `verify`, `export`, `import` and `publish` then exit with the code of \
their work. For the other commands, for `--help` and for a dry run of `publish` without `--out`, the output itself is the \
work: if part of it is lost, the code is 1 and a line says why, unless the reader has left, as `head` does.

SIGINT (Ctrl-C), SIGTERM, SIGUSR1 and SIGHUP (the terminal was closed, unless nohup started it) ask `alens cache`, `alens fit` and
`alens sweep` to save and stop with exit code 75; a line says at once that they do. A second Ctrl-C stops at once.

## Configuration files

`--config FILE.toml` gives options and arguments by name: the long name of an option without the leading dashes, \
the name of an argument in lower case. Keys may be written with `-` or `_`. Lists are TOML lists (`layers = [8, 9]`), \
switches are `true` or `false`. Options on the command line override the file. An unknown key \
is an error that lists the valid ones.
"""


def reference() -> str:
    """The whole page."""
    codes = "\n".join(f"| {code} | {meaning} |" for code, meaning in EXIT_CODES.items())
    context = click.Context(group, info_name="alens", **group.context_settings)
    sections = [INTRODUCTION.format(exit_codes=codes)]
    for name in COMMANDS:
        command = group.get_command(context, name)
        assert command is not None, name
        sections.append(_section(command, click.Context(command, info_name=name, parent=context)))
    return "\n".join(sections)


def _section(command: click.Command, context: click.Context) -> str:
    """Usage, description, options and examples of one command."""
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    paragraphs = [" ".join(text.split()) for text in (command.help or "").split("\n\n")]
    options = "\n".join(
        _row(param, context)
        for param in command.params
        if isinstance(param, click.Option) and not param.hidden
    )
    return "\n\n".join(
        [
            f"## {context.command_path}",
            f"```\n{usage}\n```",
            *paragraphs,
            f"| option | default | meaning |\n| --- | --- | --- |\n{options}",
            f"Example:\n\n```\n{_examples(command)}\n```\n",
        ]
    )


def _examples(command: click.Command) -> str:
    """`Example: a; on 4 GPUs: b` -> `a`, a comment and `b`, a line each."""
    first, *more = (command.epilog or "").removeprefix("Example: ").split("; ")
    lines = [first]
    for part in more:
        when, _, then = part.partition(": ")
        lines += [f"# {when}", then]
    return "\n".join(lines)


def _row(option: click.Option, context: click.Context) -> str:
    """One row of the table. Square brackets at the end of the help hold the default and the limits."""
    record = option.get_help_record(context)
    assert record is not None
    names, text = record
    default, limits = "off" if option.is_flag else "none", []
    while match := re.fullmatch(r"(.*\S)\s+\[([^\[\]]*)\]", text, re.DOTALL):
        text = match[1]
        for part in match[2].split("; "):
            if part.startswith("default: "):
                default = part.removeprefix("default: ")
            else:
                limits.append(f"`{part}`")
    meaning = " ".join([*text.split(), *limits])
    return f"| `{_cell(names.removesuffix(' RANGE'))}` | {_cell(default)} | {_cell(meaning)} |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    show(*reference().splitlines())
