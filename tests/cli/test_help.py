import json
import shlex
import subprocess
import sys
from typing import Any

import click
import pytest

from alens.cli import COMMANDS, group

HEAVY = {
    "torch",
    "transformers",
    "transformer_lens",
    "zarr",
    "deepspeed",
    "datasets",
    "numpy",
    "pyarrow",
    "rich",
}


def command(name: str) -> click.Command:
    known = group.get_command(click.Context(group, **group.context_settings), name)
    assert known is not None
    return known


@pytest.mark.parametrize("arguments", [["--help"], *([name, "--help"] for name in COMMANDS)])
def test_help_is_instant(arguments: list[str]) -> None:
    """Nothing heavy is imported to show it."""
    code = (
        "import json, sys; from alens.cli import run; code = run(sys.argv[1:]); "
        "print(json.dumps([code, sorted(name for name in sys.modules if '.' not in name)]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True, timeout=400
    )
    exit_code, modules = json.loads(done.stdout.splitlines()[-1])
    assert (exit_code, done.stderr) == (0, "")
    assert not HEAVY & set(modules)


def test_a_command_ends_without_a_last_look_for_garbage() -> None:
    """What is frozen, the collector leaves alone."""
    code = (
        "import atexit, gc, sys; from alens.cli import main; sys.argv = ['alens', '--help']; "
        "atexit.register(lambda: print(gc.get_freeze_count() > 0)); main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=400
    )
    assert done.stdout.splitlines()[-1] == "True"


ENDS = """
import atexit, os, sys, threading, time
from alens.cli import main

def leave(code, leave=os._exit):
    print("left to the system", flush=True)
    leave(code)

def work():
    time.sleep(0.3)
    print("worked")

os._exit = leave
atexit.register(print, "at exit")
if sys.argv.pop(1) == "thread":
    threading.Thread(target=work).start()
main()
"""


@pytest.mark.parametrize(
    ("waits_for", "said"), [("thread", ["worked", "at exit"]), ("none", ["at exit", "left to the system"])]
)
def test_a_command_leaves_its_memory_to_the_system(waits_for: str, said: list[str]) -> None:
    """Unless a thread is at work: then Python waits for it, and ends as it does."""
    done = subprocess.run(
        [sys.executable, "-c", ENDS, waits_for, "bogus"], capture_output=True, text=True, timeout=400
    )
    assert (done.returncode, done.stdout.splitlines()) == (2, said)
    assert done.stderr.startswith("alens: No such command 'bogus'")


def test_help_names_every_command_and_ends_with_an_example(run_alens: Any) -> None:
    code, out, err = run_alens("--help")
    assert (code, err) == (0, "")
    assert all(f"  {name} " in out for name in COMMANDS)
    assert out.rstrip().split("\n\n")[-1].strip().startswith("Example: alens cache demo demo")


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_a_command_ends_with_an_example_of_it(run_alens: Any, name: str) -> None:
    code, out, err = run_alens(name, "--help")
    assert (code, err) == (0, "")
    assert out.rstrip().split("\n\n")[-1].strip().startswith(f"Example: alens {name} ")


@pytest.mark.parametrize("name", COMMANDS)
def test_the_example_of_a_command_can_be_parsed(name: str) -> None:
    tested = command(name)
    words = shlex.split((tested.epilog or "").removeprefix("Example: ").split("; ")[0])
    assert words[:2] == ["alens", name]
    tested.make_context(name, words[2:])


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_is_explained(name: str) -> None:
    for parameter in command(name).params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{name} {parameter.opts}"


def test_short_help(run_alens: Any) -> None:
    assert run_alens("-h") == run_alens("--help")
    assert run_alens("info", "-h") == run_alens("info", "--help")


def test_alens_alone_shows_the_help(run_alens: Any) -> None:
    assert run_alens() == run_alens("--help")


def test_version(run_alens: Any) -> None:
    code, out, _ = run_alens("--version")
    assert code == 0
    assert out.startswith("alens ")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["bogus"], "alens: No such command 'bogus'. (see: alens --help)\n"),
        (["info"], "alens: Missing argument 'PATH'. (see: alens info --help)\n"),
        (
            ["read", "x", "y", "--layer", "0-99999999999"],
            "alens: Invalid value for '--layers' / '--layer': '0-99999999999' is not a list of numbers such as 0,2,5-7 (see: alens read --help)\n",
        ),
        (
            ["read", "x", "y", "--layer", "3-1"],
            "alens: Invalid value for '--layers' / '--layer': '3-1' is not a list of numbers such as 0,2,5-7 (see: alens read --help)\n",
        ),
        (
            ["read", "x", "y", "--model", ""],
            "alens: Invalid value for '--model': it is empty: name one, or leave the option out (see: alens read --help)\n",
        ),
        (
            ["compare", "x", "--clean", "a", "--suspect", "b", "--resamples", "999999999999"],
            "alens: Invalid value for '--resamples': 999999999999 is not in the range 1<=x<=100000. (see: alens compare --help)\n",
        ),
        (
            ["inject", "x", "y", "--layer", "0", "--random", "999999999999"],
            "alens: Invalid value for '--random': 999999999999 is not in the range 0<=x<=1000. (see: alens inject --help)\n",
        ),
        (["info", "x", "--bogus"], "alens: No such option '--bogus'. (see: alens info --help)\n"),
    ],
)
def test_what_cannot_be_parsed_is_one_line(run_alens: Any, arguments: list[str], says: str) -> None:
    code, out, err = run_alens(*arguments)
    assert (code, out) == (2, "")
    assert err.replace(" --bogus.", " '--bogus'.") == says  # click 8.1 writes it without quotes


def test_what_is_called_alike_is_given_alike() -> None:
    """`--layers` may be `--layer`, and so on; a seed is never negative, a heat map is a path everywhere."""
    collected: dict[str, set[object]] = {}
    for name in COMMANDS:
        for parameter in command(name).params:
            for option in parameter.opts:
                collected.setdefault(option, set()).add((parameter.type.name, parameter.metavar))
            if "--layers" in parameter.opts or "--heads" in parameter.opts:
                spelled = "--layer" if "--layers" in parameter.opts else "--head"
                assert spelled in parameter.opts, name
    assert collected["--heads"] == collected["--head"] == {("heads", None)}
    assert collected["--heat-map"] == {("path", "FILE.png|FILE.html")}
    assert collected["--show"] == {("integer range", None)}


@pytest.mark.parametrize("key", ["layer", "layers"])
def test_a_file_may_spell_an_option_as_the_command_line_may(
    run_alens: Any, demo_lenses: Any, tmp_path: Any, key: str
) -> None:
    config = tmp_path / "c.toml"
    config.write_text(f"{key} = [2]\n")
    outcome = run_alens("read", demo_lenses, "The man", "--config", config)
    assert outcome.code == 2 and "has no lens for layer 2" in outcome.stderr
    config.write_text("laier = [2]\n")
    refused = run_alens("read", demo_lenses, "The man", "--config", config).stderr
    assert (
        "valid keys are all, attention, chat, compare, details, device, effect, first-token, heads, html"
        in refused
        and "layer," not in refused
    )


@pytest.mark.parametrize("name", COMMANDS)
def test_an_empty_path_is_refused(name: str) -> None:
    """A job script passes one where its variable is not set; it must not mean the current directory."""
    paths = [parameter for parameter in command(name).params if isinstance(parameter.type, click.Path)]
    assert paths
    for parameter in paths:
        with pytest.raises(click.BadParameter, match="it is empty: name a path"):
            parameter.type.convert("", parameter, None)


@pytest.mark.parametrize(
    "arguments",
    [("cache", "", "demo", "store"), ("cache", "demo", "", "store"), ("plan", "demo", ""), ("info", "")],
)
def test_an_empty_argument_is_refused_in_one_line(run_alens: Any, arguments: tuple[str, ...]) -> None:
    code, out, err = run_alens(*arguments)
    assert (code, out, err.count("\n")) == (2, "", 1) and "it is empty: name" in err
