"""`alens read` of many heads: one line each, the first ones first, whole at 80 and at 120 columns."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len

from alens.cli.read_details import LENS, WRITTEN
from alens.cli.read_table import Screen, show_reading
from alens.reading.result import HeadReading, Reading, TokenScore, Written, WrittenToken
from alens.reading.settings import Sort

from ..outcomes import refusal

TOKENS = (" Mary", " John", " antidisestablishmentarianism", "\n\n", " a b", "店", "'s", " store")


def reading(heads: int = 270) -> Reading:
    """A reading of so many heads, nine a layer; head i writes up to i / 100 logits, and has a KL of i / 50 nats."""
    scores = [
        TokenScore(token=token, id=k, probability=0.1 / (k + 1), lift=10.0 ** (8 - k))
        for k, token in enumerate(TOKENS)
    ]

    def written(size: float, known: bool) -> Written:
        logits = [WrittenToken(token=token, id=k, logit=size / (k + 1)) for k, token in enumerate(TOKENS)]
        lowered = [replace(one, logit=-0.9 * one.logit) for one in reversed(logits)]
        return Written(raised=logits, lowered=lowered, suppressed=lowered[:1] if known else [])

    return Reading(
        prompt="He",
        tokens=["He"],
        vocabulary=4096,
        positions=[0],
        before={0: "He"},
        site="attn.z",
        rank="lift",
        min_probability=0.001,
        model={0: scores},
        model_entropy={0: 2.0},
        model_terms={0: []},
        mean_output_kl={0: 3.0},
        no_write=None,
        no_attention="not asked for",
        heads=[
            HeadReading(
                position=0,
                layer=i // 9,
                head=i % 9,
                says_nothing=i % 50 == 1,
                lens=scores,
                unembedding=[],
                lens_kl=i / 50,
                lens_entropy=1.0,
                unembedding_kl=None,
                unembedding_entropy=None,
                lens_terms=[],
                unembedding_terms=[],
                written=written(i / 100, i % 50 == 2),
                written_terms=[],
                effect=None,
                effect_terms=[],
            )
            for i in range(heads)
        ],
    )


@pytest.fixture
def shown(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    def show(
        one: Reading,
        *,
        width: int = 80,
        lists: tuple[str, ...] = (LENS, *WRITTEN),
        sort: Sort | None = None,
        all_heads: bool = False,
        details: bool | None = None,
    ) -> list[str]:
        monkeypatch.setenv("COLUMNS", str(width))
        screen = Screen(columns=lists, looks="none", sort=sort, all_heads=all_heads, details=details)
        show_reading(one, "a/model", screen)
        return capsys.readouterr().out.splitlines()

    return show


def heads_of(lines: list[str]) -> list[str]:
    return [match[1] for line in lines if (match := re.match(r" *(\d+\.\d+)[!~]* ", line))]


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("details", [None, True])
def test_no_line_is_too_long_and_no_token_is_split(shown: Any, width: int, details: bool | None) -> None:
    lines = shown(reading(), width=width, details=details)
    assert max(map(cell_len, lines)) <= width
    whole = [repr(token) for token in TOKENS if len(token) < 22]
    text = "\n".join(lines)
    assert all(token in text for token in whole)
    assert ">99,999x" in text and not re.search(r"\d{3},\d{3}x", text)
    for line in lines:
        assert line.count("' Mary") == line.count("' Mary'") and line.count(" antid") == line.count("…'")


def test_a_screenful_says_what_more_there_is(shown: Any) -> None:
    lines = shown(reading())
    assert len(lines) <= 40 and len(heads_of(lines)) == 20
    assert "a/model, position 0, after 'He'" in lines
    text = " ".join(" ".join(lines).split())
    assert (
        "270 heads: 264 with a lens that says something, 147 with one below the mean output here, 6 with tokens known"
        in text
    )
    assert "Sorted by the largest write on a token; 250 more of 270: --all; full lists: --details" in text
    everything = shown(reading(), all_heads=True)
    assert len(heads_of(everything)) == 270 and not any("more of" in line for line in everything)


@pytest.mark.parametrize(
    ("sort", "first"),
    [("written", "29.8"), ("kl", "0.0"), ("gain", "0.0"), ("layer", "0.0"), (None, "29.8")],
)
def test_heads_are_sorted(shown: Any, sort: Sort | None, first: str) -> None:
    assert heads_of(shown(reading(), sort=sort))[0] == first


def test_without_writes_the_gain_comes_first_and_the_lens_is_listed(shown: Any) -> None:
    one = reading()
    plain = replace(one, no_write="not known", heads=[replace(head, written=None) for head in one.heads])
    lines = shown(plain, lists=(LENS,))
    assert heads_of(lines)[0] == "0.0"
    (heading,) = [line for line in lines if line.split()[:1] == ["head"]]
    assert heading.split() == ["head", "KL", "gain", "lens"]


def test_a_line_has_figures_tokens_and_marks(shown: Any) -> None:
    lines = shown(reading(), all_heads=True)
    (marked,) = [line for line in lines if line.split()[:1] == ["28.0~"]]
    assert marked.split()[1:4] == ["5.04", "-2.04", "+2.52"]
    assert "' Mary' ' John'" in marked and "~' store'" in marked
    assert [line for line in lines if line.split()[:1] == ["27.8!"]]
    assert any(line.startswith("! says nothing: ") for line in lines)
    assert any(line.startswith("~ knows, and suppresses: ") for line in lines)


def test_few_heads_have_their_full_lists(run_alens: Any, demo_lenses: Path) -> None:
    given = ("read", demo_lenses, "She went to", "--top", "3")
    full, lines = run_alens(*given).stdout, run_alens(*given, "--lines").stdout
    assert "entropy" in full.split("raises")[1] and " gain " not in full
    assert re.search(r"head +KL +gain +write +raises +lowers", lines)
    assert run_alens(*given, "--details").stdout == full
    four = run_alens(*given, "--lines", "--sort", "layer").stdout
    assert heads_of(four.splitlines()) == ["0.1", "0.4", "3.1", "3.4"]


def test_heads_are_sorted_by_a_token(run_alens: Any, demo_lenses: Path) -> None:
    given = ("read", demo_lenses, "She went to", "--lines", "--token", "door", "--sort", "token")
    lines = run_alens(*given).stdout.splitlines()
    (heading,) = [line for line in lines if line.split()[:1] == ["head"]]
    assert heading.split()[1:5] == ["KL", "gain", "write", "'door'"]
    moved = [abs(float(line.split()[4])) for line in lines if heads_of([line])]
    assert len(moved) == 4 and moved == sorted(moved, reverse=True)


@pytest.mark.parametrize(
    ("sort", "told"),
    [("effect", "name them with --effect"), ("token", "name it with --token"), ("size", "is not one of")],
)
def test_an_order_that_cannot_be_had_is_refused(
    run_alens: Any, demo_lenses: Path, sort: str, told: str
) -> None:
    assert told in refusal(run_alens("read", demo_lenses, "He", "--sort", sort), after_log=True)
