"""`alens compare`: tables, JSON and pictures of what changes, and how it refuses."""

import json
from pathlib import Path
from typing import Any

import pytest

from ..outcomes import refusal

QUICK = ("--layer", "0", "--resamples", "49")


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """Six prompts each, in pairs."""
    collected = []
    for name, word in (("clean", "old"), ("suspect", "black")):
        path = tmp_path / f"{name}.txt"
        path.write_text(
            "".join(
                f"He saw the {word} {what} and\n" for what in ("dog", "door", "sea", "man", "house", "boat")
            )
        )
        collected.append(path)
    return collected[0], collected[1]


def test_two_prompts_are_compared(run_alens: Any, demo_lenses: Path) -> None:
    given = ("compare", demo_lenses, "--clean", "The old man said", "--suspect", "[bold]:smile: \\[red]")
    code, out, err = run_alens(*given)
    assert code == 0, err
    body = json.loads(run_alens(*given, "--json").stdout)
    assert body["detection"] is None and len(body["heads"]) == 4
    for one in body["heads"]:
        assert f"{one['layer']}.{one['head']}" in out and f"{one['lens']['divergence']:.4f}" in out
        assert repr(one["lens"]["appear"][0]["token"]) in out
    assert "noise" not in out and "detectors" not in out


def test_files_give_a_table_a_detector_and_pictures(
    run_alens: Any, demo_lenses: Path, files: tuple[Path, Path], tmp_path: Path
) -> None:
    clean, suspect = files
    roc, grid = tmp_path / "roc.png", tmp_path / "map.html"
    given = ("compare", demo_lenses, "--clean", clean, "--suspect", suspect, "--paired", *QUICK)
    code, out, err = run_alens(*given, "--roc", roc, "--heat-map", grid, "--show", "1")
    assert code == 0, err
    body = json.loads(run_alens(*given, "--json").stdout)
    assert (body["num_clean"], body["num_suspect"], body["paired"], body["resamples"]) == (6, 6, True, 49)
    assert "1 of 2 heads" in out and f"{body['heads'][0]['lens']['noise']['p_adjusted']:.3f}" in out
    assert f"{body['heads'][1]['lens']['divergence']:.4f}" not in out
    judged = body["detection"]
    for name, key in (("lenses, contrast", "lens_contrast"), ("length alone", "length")):
        (line,) = [line for line in out.splitlines() if line.strip().startswith(name)]
        assert f"{judged[key]['auc']:.3f}" in line
    assert "contrasts and last token over 400 refits" in " ".join(out.split())
    assert judged["lens_contrast"]["interval_over"] == "judged prompts and refits" and judged["refits"] == 400
    assert roc.read_bytes().startswith(b"\x89PNG")
    assert grid.read_text().count("<td") == 2


def test_labels_may_be_words_or_numbers(
    run_alens: Any, demo_lenses: Path, files: tuple[Path, Path], tmp_path: Path
) -> None:
    test = tmp_path / "test.jsonl"
    rows = [
        ("A cat and", "clean"),
        ("A black cat and", "suspect"),
        ("Some cats and", 0),
        ("Black cats and", True),
    ]
    test.write_text("".join(json.dumps({"prompt": text, "label": label}) + "\n" for text, label in rows))
    given = ("compare", demo_lenses, "--clean", files[0], "--suspect", files[1], "--test", test, *QUICK)
    code, out, err = run_alens(*given)
    assert code == 0, err
    assert "judged on 2 clean and 2 suspect prompts: prompts of" in out
    assert "of the detectors as they were fitted" in out and "refits" not in out


def test_lenses_of_the_residual_stream_are_compared(
    run_alens: Any, residual_cache: Path, tmp_path: Path
) -> None:
    lenses = tmp_path / "lenses"
    fit = (
        "fit",
        residual_cache,
        lenses,
        "--site",
        "resid_post",
        "--steps",
        "2",
        "--batch-rows",
        "64",
        "--eval-rows",
        "64",
    )
    assert run_alens(*fit).code == 0
    code, out, err = run_alens("compare", lenses, "--clean", "He said", "--suspect", "She went", "--json")
    assert code == 0, err
    assert sorted(one["layer"] for one in json.loads(out)["heads"]) == [1, 2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--clean", "gone.txt", "--suspect", "He"), "cannot read gone.txt"),
        (("--clean", "", "--suspect", "He"), "the prompt is empty"),
        (("--clean", "{empty}", "--suspect", "He"), "empty.txt holds no prompt"),
        (("--clean", "{clean}", "--suspect", "He", "--layer", "2"), "no lens for layer 2"),
        (("--clean", "{clean}", "--suspect", "He", "--head", "0"), "no lens for head 0"),
        (
            ("--clean", "{clean}", "--suspect", "He", "--position", "x"),
            "position 'x' is neither `last`, `all`",
        ),
        (
            ("--clean", "{clean}", "--suspect", "He", "--position", "1"),
            "position 1 does not exist in the prompt 'He'",
        ),
        (("--clean", "{clean}", "--suspect", "He", "--roc", "roc.png"), "--roc needs a detector"),
        (("--clean", "{clean}", "--suspect", "{suspect}", "--roc", "roc.pdf"), "is written as .png"),
        (("--clean", "{clean}", "--suspect", "{suspect}", "--roc", "{folder}"), "roc.png is a directory"),
        (
            ("--clean", "{clean}", "--suspect", "{suspect}", "--heat-map", "none/map.png"),
            "none does not exist",
        ),
        (("--clean", "{clean}", "--suspect", "{suspect}", "--roc", "a.png", "--heat-map", "a.png"), "both"),
        (
            ("--clean", "{clean}", "--suspect", "He", "--paired"),
            "6 prompts and He 1: pairs need equal numbers",
        ),
        (("--clean", "{clean}", "--suspect", "He", "--test", "He"), "is not a file of prompts"),
        (("--clean", "{clean}", "--suspect", "{suspect}", "--test", "{clean}"), "has the label None"),
        (("--clean", "{clean}", "--suspect", "{suspect}", "--test", "{one}"), "has clean prompts alone"),
        (("--clean", "{clean}", "--suspect", "{suspect}", "--test", "{seen}"), "has 1 prompts that stand in"),
        (("--clean", "{clean}", "--suspect", "He", "--test", "{fresh}"), "two clean and two suspect"),
        (("--clean", "{clean}"), "Missing option '--suspect'"),
        (("--clean", "{long}", "--suspect", "He"), "long.txt:2: the prompt has 300 tokens"),
        (("--clean", " the" * 300, "--suspect", "He"), "the...': the prompt has 300 tokens"),
        (("--clean", f"{Path(__file__).parent}", "--suspect", "He"), "is not a file of prompts"),
        (
            (
                "--clean",
                "{clean}",
                "--suspect",
                "{suspect}",
                "--roc",
                "a.png",
                "--heat-map",
                "../{here}/a.png",
            ),
            "both",
        ),
    ],
)
def test_a_wrong_request_is_refused_in_one_line(
    run_alens: Any,
    demo_lenses: Path,
    files: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "roc.png").mkdir()
    (tmp_path / "empty.txt").write_text("\n\n")
    (tmp_path / "long.txt").write_text("He\n" + " the" * 300 + "\n")
    fresh = [{"prompt": "A cat", "label": "clean"}, {"prompt": "Some cats", "label": "suspect"}]
    for name, rows in (
        ("one", fresh[:1]),
        ("seen", [*fresh, {"prompt": "He saw the old dog and", "label": 0}]),
        ("fresh", fresh),
    ):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    names = {"clean": files[0], "suspect": files[1], "folder": tmp_path / "roc.png", "here": tmp_path.name}
    names |= {name: tmp_path / f"{name}.jsonl" for name in ("one", "seen", "fresh")}
    names |= {name: tmp_path / f"{name}.txt" for name in ("empty", "long")}
    if "{folder}" not in arguments:
        (tmp_path / "roc.png").rmdir()
    given = [argument.format(**names) for argument in arguments]
    assert message in refusal(run_alens("compare", demo_lenses, *given))


def test_what_is_no_lens_directory_is_refused(run_alens: Any, tmp_path: Path) -> None:
    given = ("compare", tmp_path / "none", "--clean", "He", "--suspect", "She")
    assert "holds no lenses" in refusal(run_alens(*given))
