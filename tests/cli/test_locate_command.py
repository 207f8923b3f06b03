"""`alens locate`: table, JSON, heat maps, and how it refuses before the work."""

import json
from pathlib import Path
from typing import Any

import pytest

from alens.pictures.numbers import percent

from ..outcomes import refusal

MEN = ["The old man opened the door, and", "John took his hat, and", "The king said that", "My father was"]
WOMEN = [
    "The old lady opened the door, and",
    "Mary took her hat, and",
    "The queen said that",
    "My mother was",
]


class Files:
    """The files of a study, and the command that reads them."""

    def __init__(self, folder: Path) -> None:
        self.terms, self.men, self.women = (folder / name for name in ("terms.txt", "men.txt", "women.txt"))
        self.both = folder / "both.jsonl"
        self.terms.write_text("# words\nhe\nhis\nman\n")
        self.men.write_text("\n".join(MEN))
        self.women.write_text("\n".join(WOMEN))
        rows = [{"prompt": text, "label": "men"} for text in MEN]
        rows += [{"prompt": text, "label": "control"} for text in WOMEN]
        self.both.write_text("\n".join(map(json.dumps, rows)))

    @property
    def given(self) -> list[Any]:
        return ["--terms", self.terms, "--prompts", self.men]

    @property
    def with_control(self) -> list[Any]:
        return [*self.given, "--control", self.women]


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def located(run_alens: Any, *arguments: Any) -> Any:
    outcome = run_alens("locate", *arguments, "--json")
    assert outcome.code == 0, outcome.stderr
    return json.loads(outcome.stdout)


def test_json_ranks_every_head(run_alens: Any, demo_lenses: Path, files: Files) -> None:
    body = located(run_alens, demo_lenses, *files.with_control)
    assert (body["prompts"], body["controls"], body["position"]) == (4, 4, "last")
    assert [head["rank"] for head in body["heads"]] == [1, 2, 3, 4]
    effects = [head["lens"]["effect"] for head in body["heads"]]
    assert effects == sorted(effects, reverse=True)
    for head in body["heads"]:
        assert head["lens"]["low"] < head["lens"]["effect"] < head["lens"]["high"]
        assert 0 < head["lens"]["p"] <= head["lens"]["p_corrected"] <= 1


def test_the_table_shows_the_heads_of_the_json(run_alens: Any, demo_lenses: Path, files: Files) -> None:
    body = located(run_alens, demo_lenses, *files.with_control)
    code, out, _ = run_alens("locate", demo_lenses, *files.with_control, env={"COLUMNS": "180"})
    assert code == 0
    places = []
    for head in body["heads"]:
        assert f"{head['lens']['effect']:+.3f}" in out
        assert f"{head['unembedding']['effect']:+.3f}" in out
        places.append(out.index(f" {head['layer']}.{head['head']} "))
    assert places == sorted(places)
    assert f"next token: effect {body['model']['effect']:+.3f}" in out
    assert "p max-t <= 0.05, 70 relabellings, all, 256 sign flips)" in out
    assert (body["relabellings"], body["more_draws"]) == (70, 256)
    assert "fewer than 8 of a kind: p holds only where prompts and controls spread alike" in out
    assert (
        body["needs_equal_spread"]
        and ("times as much as those of controls" in out) == body["spreads_unequally"]
    )
    assert "a term stands in 2 of 8 prompts and controls" in out


def test_the_kl_of_the_mean_output_stands_beside_that_of_the_lenses(
    run_alens: Any, demo_lenses: Path, files: Files
) -> None:
    body = located(run_alens, demo_lenses, *files.with_control)
    out = run_alens("locate", demo_lenses, *files.with_control).stdout  # 80 columns
    table = out[: out.index("the model's own")]
    assert max(map(len, table.splitlines())) <= 80 and "…" not in table
    assert f"that of the mean output is {body['mean_output_kl']:.2f}\n> above it" in out
    for head in body["heads"]:
        above = head["lens_kl"] > body["mean_output_kl"]
        assert f" {'>' if above else ''}{head['lens_kl']:.2f} " in table


def test_a_head_named_twice_is_one_test(run_alens: Any, demo_lenses: Path, files: Files) -> None:
    given = (demo_lenses, *files.with_control, "--correction", "bonferroni", "--head", "1")
    once, twice = (located(run_alens, *given, "--layer", layers)["heads"] for layers in ("0", "0,0"))
    assert len(once) == 1 and once == twice


def test_top_shortens_the_table_alone(run_alens: Any, demo_lenses: Path, files: Files) -> None:
    out = run_alens("locate", demo_lenses, *files.with_control, "--top", "1", env={"COLUMNS": "180"}).stdout
    (best, *others) = located(run_alens, demo_lenses, *files.with_control, "--top", "1")["heads"]
    assert f" {best['layer']}.{best['head']} " in out
    assert all(f" {head['layer']}.{head['head']} " not in out for head in others) and len(others) == 3


def test_a_labelled_file_holds_its_controls(run_alens: Any, demo_lenses: Path, files: Files) -> None:
    labelled = located(run_alens, demo_lenses, "--terms", files.terms, "--prompts", files.both)
    assert labelled == located(run_alens, demo_lenses, *files.with_control)


def test_without_controls_it_says_what_it_compares_with(
    run_alens: Any, demo_lenses: Path, files: Files
) -> None:
    code, out, _ = run_alens("locate", demo_lenses, *files.given, env={"COLUMNS": "180"})
    assert code == 0
    assert "4 prompts against the mean output" in out
    assert "no controls: compared with the model's mean output" in out
    assert located(run_alens, demo_lenses, *files.given)["controls"] is None


def test_options_reach_the_test(run_alens: Any, demo_lenses: Path, files: Files) -> None:
    more = [
        "--by",
        "written",
        "--paired",
        "--correction",
        "bonferroni",
        "--alternative",
        "greater",
        "--alpha",
        "0.2",
        "--seed",
        "3",
    ]
    body = located(
        run_alens, demo_lenses, *files.with_control, *more, "--permutations", "9", "--position", "all"
    )
    assert body["settings"] == {
        "by": "written",
        "paired": True,
        "correction": "bonferroni",
        "alternative": "greater",
        "alpha": 0.2,
        "seed": 3,
        "permutations": 9,
    }
    assert (body["relabellings"], body["exact"], body["position"]) == (10, False, "all")


def test_the_unembedding_can_be_left_out(run_alens: Any, demo_lenses: Path, files: Files) -> None:
    given = (*files.with_control, "--compare", "none", "--layer", "3", "--head", "1")
    (head,) = located(run_alens, demo_lenses, *given)["heads"]
    assert (head["layer"], head["head"], head["unembedding"]) == (3, 1, None)
    assert "unembedding" not in run_alens("locate", demo_lenses, *given).stdout


def test_effect_lenses_rank_the_heads_that_have_one(
    run_alens: Any, demo_lenses: Path, demo_effect_lenses: Path, files: Files
) -> None:
    given = (demo_lenses, *files.with_control, "--by", "effect", "--effect", demo_effect_lenses)
    body = located(run_alens, *given)
    assert [head["effect"] is not None for head in body["heads"]] == [True, True]
    out = run_alens("locate", *given).stdout
    assert "effects by effect, nats" in out and f"{body['heads'][0]['effect']['effect']:+.3f}" in out
    assert "which are left out: 2 of 4" in " ".join(out.split())


def test_head_pursuit_ranks_heads_by_shares(run_alens: Any, demo_lenses: Path, files: Files) -> None:
    given = (demo_lenses, *files.given, "--by", "pursuit")
    (best, *_) = located(run_alens, *given)["heads"]
    out = run_alens("locate", *given).stdout
    assert "against random tokens, last position; effects by pursuit, share of what a" in " ".join(
        out.split()
    )
    assert f"{best['pursuit']['effect']:+.3f}" in out and "compared with the model's mean output" not in out
    assert max(map(len, out[: out.index("the model's own")].splitlines())) <= 80


@pytest.fixture
def asked(tmp_path: Path) -> Path:
    """Prompts with targets and foils of their own."""
    path = tmp_path / "asked.jsonl"
    answers = [("he", "she"), ("the", "a"), ("she", "he"), ("not", "very")]
    rows = [
        {"prompt": text, "target": target, "foil": foil}
        for text, (target, foil) in zip(MEN, answers, strict=True)
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def test_prompts_with_targets_of_their_own_need_no_terms(
    run_alens: Any, demo_lenses: Path, asked: Path, tmp_path: Path
) -> None:
    given = (demo_lenses, "--prompts", asked, "--by", "written")
    body = located(run_alens, *given)
    assert body["own_answers"] and body["controls"] is None and len(body["heads"]) == 4
    does = body["model_does"]["prompts"]
    assert does["right_low"] < does["right"] < does["right_high"]
    outcome = run_alens("locate", *given, "--heat-map", tmp_path / "map.png")
    assert outcome.code == 0, outcome.stderr
    out = " ".join(outcome.stdout.split())
    assert "4 prompts, each with its own target, against their foils" in out and "P(target)" in out
    assert f"the model itself prefers the target to its foil on {percent(does['right'])} of prompts" in out
    assert max(map(len, outcome.stdout[: outcome.stdout.index("the model itself")].splitlines())) <= 80


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--terms", "{terms}", "--prompts", "{asked}"], "leave the terms out"),
        (["--prompts", "{men}"], "--terms is missing: name a file of words, or give each line of"),
        (
            ["--prompts", "{asked}", "--control", "{men}"],
            "the control prompt of a line is its field `control`",
        ),
        (["--prompts", "{asked}", "--position", "all"], "take the position `last`"),
    ],
)
def test_targets_and_terms_do_not_mix(
    run_alens: Any, demo_lenses: Path, files: Files, asked: Path, arguments: list[str], message: str
) -> None:
    named = {"terms": files.terms, "men": files.men, "asked": asked}
    given = [argument.format(**named) for argument in arguments]
    assert message in refusal(run_alens("locate", demo_lenses, *given))


def test_too_few_prompts_are_said_and_nothing_is_starred(
    run_alens: Any, demo_lenses: Path, files: Files
) -> None:
    files.men.write_text("\n".join(MEN[:2]))
    files.women.write_text("\n".join(WOMEN[:2]))
    out = run_alens("locate", demo_lenses, *files.with_control, env={"COLUMNS": "180"}).stdout
    assert "too few prompts: one head alone could reach p 0.333 at best" in out
    assert "0 of 4 heads raise the terms" in out


def test_heat_maps_are_written(run_alens: Any, demo_lenses: Path, files: Files, tmp_path: Path) -> None:
    maps = tmp_path / "map.png", tmp_path / "map.html"
    body = located(run_alens, demo_lenses, *files.with_control, "--heat-map", maps[0], "--heat-map", maps[1])
    assert maps[0].read_bytes().startswith(b"\x89PNG")
    text = maps[1].read_text()
    for head in body["heads"]:
        assert f">{head['lens']['effect']:.3g}</td>" in text
    assert "he, his, man: 4 prompts against 4 controls" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--heat-map", "map.svg"], "a heat map is written as .png or .html"),
        (["--heat-map", "none/map.png"], "does not exist: make it"),
        (["--layer", "2"], "no lens for layer 2"),
        (["--head", "0"], "no lens for head 0"),
        (["--alpha", "1"], "--alpha"),
        (["--permutations", "100001"], "--permutations"),
        (["--correction", "tukey"], "--correction"),
        (["--control", "none.txt"], "cannot read none.txt"),
        (["--model", "/nowhere"], "/nowhere does not exist"),
        (
            ["--by", "effect"],
            "by effect needs effect lenses of the same model (`alens fit --lens effect`): name them",
        ),
        (["--effect", "lenses"], "nothing is read by them: say --by effect, or leave it out"),
    ],
)
def test_a_wrong_request_is_refused_in_one_line(
    run_alens: Any, demo_lenses: Path, files: Files, arguments: list[str], message: str
) -> None:
    assert message in refusal(run_alens("locate", demo_lenses, *files.with_control, *arguments))


def test_an_output_that_cannot_be_is_told_before_anything_is_read(run_alens: Any, files: Files) -> None:
    assert "heat map is written as" in refusal(
        run_alens("locate", "no-lenses", *files.with_control, "--heat-map", "x.pdf")
    )


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("terms", "", "holds no term"),
        ("terms", "incomprehensibilities", "are not a single token of this model"),
        ("men", "\n", "holds no prompt"),
        ("men", "He was\nHe was", "1 prompt is too few to tell a head from chance: give 2 or more; repeated prompts, which count once: 1"),
        ("men", "He was", "1 prompt is too few"),
        ("women", "She was", "1 control prompt is too few"),
        ("men", "He was\n" + " the" * 300, "men.txt:2: the prompt has 300 tokens"),
    ],
)  # fmt: skip
def test_odd_files_are_refused(
    run_alens: Any, demo_lenses: Path, files: Files, name: str, content: str, message: str
) -> None:
    getattr(files, name).write_text(content)
    assert message in refusal(run_alens("locate", demo_lenses, *files.with_control))


def test_pairs_that_do_not_match_are_refused(run_alens: Any, demo_lenses: Path, files: Files) -> None:
    files.women.write_text("\n".join(WOMEN[:3]))
    line = refusal(run_alens("locate", demo_lenses, *files.with_control, "--paired"))
    assert "4 prompts and 3 controls are not pairs" in line


def test_a_text_that_is_repeated_counts_once(run_alens: Any, demo_lenses: Path, files: Files) -> None:
    once = located(run_alens, demo_lenses, *files.with_control)
    files.men.write_text("\n".join([*MEN, *MEN, MEN[0]]))
    files.women.write_text("\n".join([*WOMEN, WOMEN[3]]))
    twice = located(run_alens, demo_lenses, *files.with_control)
    notes = ["repeated prompts, which count once: 5", "repeated controls, which count once: 1"]
    assert (once.pop("notes"), twice.pop("notes")) == ([], notes)
    assert twice == once
    assert notes[0] in run_alens("locate", demo_lenses, *files.with_control).stdout


def test_a_pair_that_is_repeated_counts_once(run_alens: Any, demo_lenses: Path, files: Files) -> None:
    """A prompt may stand in several pairs, with another control in each."""
    men, women = [*MEN, MEN[0], MEN[0]], [*WOMEN, WOMEN[0], WOMEN[1]]
    files.men.write_text("\n".join(men))
    files.women.write_text("\n".join(women))
    body = located(run_alens, demo_lenses, *files.with_control, "--paired")
    assert (body["prompts"], body["controls"]) == (5, 5)
    assert body["notes"] == ["repeated pairs, which count once: 1"]


def test_prompts_that_are_controls_too_are_told_of(run_alens: Any, demo_lenses: Path, files: Files) -> None:
    files.women.write_text("\n".join([*WOMEN, MEN[0]]))
    (note,) = located(run_alens, demo_lenses, *files.with_control)["notes"]
    assert note == "prompts that are controls too, which draws the effect to 0: 1"
    files.women.write_text("\n".join([*WOMEN[:3], MEN[3]]))
    (note,) = located(run_alens, demo_lenses, *files.with_control, "--paired")["notes"]
    assert note == "pairs of one text twice, which say nothing: 1"


@pytest.mark.parametrize("more", [(), ("--paired",)])
def test_controls_that_are_the_prompts_are_refused(
    run_alens: Any, demo_lenses: Path, files: Files, more: tuple[str, ...]
) -> None:
    given = (*files.given, "--control", files.men, *more)
    assert "the controls are the prompts again" in refusal(run_alens("locate", demo_lenses, *given))


def test_controls_in_two_places_are_refused(run_alens: Any, demo_lenses: Path, files: Files) -> None:
    given = ("--terms", files.terms, "--prompts", files.both, "--control", files.women)
    assert "leave one out" in refusal(run_alens("locate", demo_lenses, *given))


def test_long_terms_count_by_their_first_token_when_asked(
    run_alens: Any, demo_lenses: Path, files: Files
) -> None:
    files.terms.write_text("incomprehensibilities\n")
    assert located(run_alens, demo_lenses, *files.with_control, "--first-token")["heads"]
