"""`alens inject`: add a direction at a head's output, or take heads away, and see what the model does."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from alens.cli.config_file import config_option
from alens.cli.console import printed, show_result
from alens.cli.options import (
    SettingsOptions,
    chat_option,
    effect_option,
    json_option,
    model_options,
    role_option,
)
from alens.cli.value_types import HEAD_LIST, NUMBERS, PathName, not_empty
from alens.cli.watch import starting, watching
from alens.errors import RequestError
from alens.heads import Heads, requested
from alens.reading.settings import Role
from alens.studies.injection.settings import Ablated, AblateSettings, InjectSettings

if TYPE_CHECKING:
    from alens.job.progress import Report
    from alens.lens.effect_lenses import EffectLenses
    from alens.lens.lenses import Lenses
    from alens.reading.prompts import Prompt

INJECT = SettingsOptions(InjectSettings, without=("layer", "head"))

INJECTION_ONLY = {
    "by": "--by",
    "effect": "--effect",
    "scaling": "--scaling",
    "within_head": "--within-head",
    "strength": "--strength",
    "position": "--position",
    "random": "--random",
    "plot": "--plot",
}
"""Options that an ablation does not have."""


@click.command(
    "inject",
    epilog='Example: alens inject layer-11 "The king and the" --head 11.3 --tokens queen --text demo',
)
@click.argument("lenses", type=PathName())
@click.argument("prompts", nargs=-1, metavar="PROMPT...")
@chat_option
@role_option
@click.option(
    "--layer",
    "--layers",
    "layer",
    type=NUMBERS,
    help="The layer; for --ablate, layers.  [default: those of the heads, if these are named such as 18.6]",
)
@click.option(
    "--head",
    "--heads",
    "head",
    type=HEAD_LIST,
    help="The head, such as 6 with --layer 18, or 18.6; for --ablate, several. Lenses of the residual stream have none.",
)
@click.option(
    "--tokens",
    multiple=True,
    metavar="TERM",
    help="A term to raise, as it is and with a space before it; repeat it for more. Commas and spaces are part of it.",
)
@click.option("--tokens-file", type=PathName(), metavar="FILE", help="A file of further terms, one per line.")
@click.option("--first-token", is_flag=True, help="If a term is several tokens long, use its first one.")
@INJECT
@click.option(
    "--ablate",
    type=click.Choice(get_args(Ablated)),
    help="Add nothing: set the heads to zero, or to their mean over the cache that --store names, else over the text, else over "
    "the cache of the fit, which the lenses hold.",
)
@click.option(
    "--store",
    type=PathName(),
    metavar="STORE",
    help="For --ablate mean: a cache of the model, whose mean z the heads are set to.",
)
@click.option(
    "--text",
    callback=not_empty,
    metavar="TEXT",
    help="Text for perplexity, and for the head's usual output or mean: a .txt, .jsonl or .parquet file, or `demo`.  [default: none]",
)
@click.option(
    "--text-tokens",
    type=click.IntRange(2),
    default=8192,
    show_default=True,
    help="At most this many tokens of the text.",
)
@effect_option
@click.option("--plot", type=PathName(), metavar="FILE.png", help="Draw the curves of strength.")
@model_options
@json_option
@config_option
def command(
    lenses: Path,
    prompts: tuple[str, ...],
    chat: tuple[Path, ...],
    role: Role | None,
    layer: tuple[int, ...] | None,
    head: tuple[int, ...] | tuple[str, ...] | None,
    tokens: tuple[str, ...],
    tokens_file: Path | None,
    ablate: str | None,
    plot: Path | None,
    as_json: bool,
    **given: Any,
) -> None:
    """Add the direction of some tokens to what a head of LENSES writes, and see what follows each PROMPT.

    For each strength it shows the terms' probability and rank, the KL to the unchanged model, and the loss on a text,
    for the direction of each reading, such as the lens's and the unembedding's, and random ones of the same norm. With --ablate it shows the same for
    heads that are removed.
    """
    from alens.pictures.dose_response import check_path
    from alens.reading.prompts import given_prompts
    from alens.reading.terms import read_terms

    if plot is not None:
        check_path(plot)
    terms = [*tokens, *(read_terms(tokens_file) if tokens_file else ())]
    asked = given_prompts(prompts, chat, role)
    if ablate is not None:
        _ablate(lenses, asked, layer, head, terms, ablate, as_json, given)
    else:
        _inject(lenses, asked, layer, head, terms, plot, as_json, given)


def _inject(
    lenses: Path,
    asked: "list[str | Prompt]",
    layer: tuple[int, ...] | None,
    head: tuple[int, ...] | tuple[str, ...] | None,
    terms: list[str],
    plot: Path | None,
    as_json: bool,
    given: dict[str, Any],
) -> None:
    from alens.cli.inject_table import draw, show_injection

    if given["store"] is not None:
        raise RequestError("--store gives the means of --ablate mean: leave it out")
    named = None if head is None else _named(layer, head)
    if len((layer or ()) if named is None else named) != 1:
        raise RequestError(
            "a direction is added at one head: name one --layer and one --head, or a --head such as 18.6"
        )
    at_layer, at_head = named.pairs[0] if named is not None else ((layer or ())[0], None)
    if not terms:
        raise RequestError("no tokens were named: give --tokens TERM, or --ablate to add nothing")
    with watching() as report:
        with starting():
            from alens.lens.lenses import load_lenses
            from alens.reading.head_says import open_effect_lenses
            from alens.reading.prompts import texts_of
            from alens.studies.injection.inject import check, inject

        opened = load_lenses(lenses)
        settings = InjectSettings(
            layer=at_layer,
            head=at_head,
            **INJECT.values(given),
        )
        wanted = "effect" in settings.readings(has_effect=given["effect"] is not None)
        effect = open_effect_lenses(given["effect"], wanted=wanted)
        check(opened, settings, has_text=given["text"] is not None, effect=effect)
        reader, token_groups, windows = _load(opened, terms, given, report, effect)
        result = inject(
            reader, texts_of(reader, asked), token_groups, settings, windows=windows, report=report
        )
    with printed(result, lambda: show_injection(result), as_json=as_json):
        if plot is not None:
            draw(plot, result)


def _ablate(
    lenses: Path,
    asked: "list[str | Prompt]",
    layer: tuple[int, ...] | None,
    head: tuple[int, ...] | tuple[str, ...] | None,
    terms: list[str],
    kind: str,
    as_json: bool,
    given: dict[str, Any],
) -> None:
    from alens.cli.inject_table import show_ablations

    source = click.get_current_context().get_parameter_source
    for name, flag in INJECTION_ONLY.items():
        if source(name) is click.core.ParameterSource.COMMANDLINE:
            raise RequestError(f"--ablate adds nothing, and {flag} says what is added: leave one of them out")
    if head is None:
        raise RequestError("no head was named: say with --head which ones to take away")
    heads = _named(layer, head).names
    with watching() as report:
        with starting():
            from alens.lens.lenses import load_lenses
            from alens.reading.prompts import texts_of
            from alens.studies.injection.ablate import ablate, check

        opened = load_lenses(lenses)
        values: Any = {"heads": heads, "kind": kind, "top": given["top"], "seed": given["seed"]}
        settings = AblateSettings(**values)
        store = given["store"]
        if store is not None and kind != "mean":
            raise RequestError("--store gives the means of --ablate mean: leave it out")
        check(opened, settings, has_mean=store is not None or given["text"] is not None)
        reader, token_groups, windows = _load(opened, terms, given, report)
        result = ablate(
            reader,
            texts_of(reader, asked),
            settings,
            terms=token_groups,
            windows=windows,
            store=store,
            report=report,
        )
    show_result(result, lambda: show_ablations(result), as_json=as_json)


def _named(layer: tuple[int, ...] | None, head: tuple[int, ...] | tuple[str, ...]) -> Heads:
    """The heads that --layer and --head name together. Raises `RequestError` where they name none, or contradict."""
    if layer is None and head and not isinstance(head[0], str):
        raise RequestError(
            f"head {head[0]} is in every layer: say which with --layer, or name it such as 18.{head[0]}"
        )
    return requested(layer, head, Heads.grid(layer or (0,), (0,)))


def _load(
    opened: "Lenses",
    terms: list[str],
    given: dict[str, Any],
    report: "Report",
    effect: "EffectLenses | None" = None,
) -> tuple[Any, Any, Any]:
    """(model with lenses, tokens of the terms, windows of the text); a missing text is refused before the model is loaded."""
    from alens.reading.lensed_model import LensedModel
    from alens.reading.terms import to_tokens
    from alens.studies.injection.perplexity import read_windows
    from alens.text.corpus import CorpusOptions, resolve

    corpus = None if given["text"] is None else resolve(given["text"], CorpusOptions())
    with starting():
        reader = LensedModel(
            opened, model=given["model"], effect=effect, device=given["device"], report=report
        )
    result = to_tokens(terms, reader.model.tokenizer, first_token=given["first_token"])
    windows = None
    if corpus is not None:
        windows = read_windows(corpus, reader.model, given["text_tokens"], bos=reader.lenses.record.bos)
    return reader, result, windows
