"""The benchmark of the three uses: its prompts are what it says, and it runs on any model."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from alens.model import models

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "docs/tutorials/examples"


def lines(name: str) -> list[str]:
    return (EXAMPLES / f"{name}.txt").read_text().splitlines()


def test_sentences_on_occupations_differ_in_the_occupation_alone() -> None:
    """And those to judge on share no occupation and no wording with those to find on."""
    ends = []
    for name in ("occupations", "occupations-other"):
        pairs = [json.loads(line) for line in (EXAMPLES / f"{name}.jsonl").read_text().splitlines()]
        assert len(pairs) == 15 and len({pair[key] for pair in pairs for key in ("prompt", "control")}) == 30
        for pair in pairs:
            ours, theirs = pair["prompt"].split(), pair["control"].split()
            assert (ours[0], ours[-1]) == (theirs[0], theirs[-1]) and (pair["target"], pair["foil"]) == (
                "he",
                "she",
            )
        ends.append({tuple(pair["prompt"].split()[-3:]) for pair in pairs})
    assert not ends[0] & ends[1]


def test_instructions_come_in_pairs_of_one_length_and_end() -> None:
    clean, suspect = lines("instructions-clean"), lines("instructions-suspect")
    other = [json.loads(line) for line in (EXAMPLES / "instructions-other.jsonl").read_text().splitlines()]
    for label, prompts in (("clean", clean), ("suspect", suspect)):
        prompts += [one["prompt"] for one in other if one["label"] == label]
    assert len(clean) == len(suspect) == 48 == len({*clean, *suspect}) / 2
    tokenizer, _ = models.load_tokenizer(models.find("demo"))
    for ours, theirs in zip(clean, suspect, strict=True):
        assert ours.split()[-1] == theirs.split()[-1]
        assert abs(len(tokenizer.encode(ours).ids) - len(tokenizer.encode(theirs).ids)) <= 8


@pytest.mark.slow
def test_it_runs_on_a_small_model(demo_cache: Path, tmp_path: Path) -> None:
    alens = [sys.executable, "-m", "alens"]
    lenses = tmp_path / "lenses"
    subprocess.run(
        [*alens, "fit", demo_cache, lenses, "--lens", "regression", "--eval-rows", "1024"], check=True
    )
    ran = subprocess.run(
        [sys.executable, ROOT / "benchmarks/three_uses.py", lenses, "--layers", "1,3", "--first", "2", "--draws", "2"],
        cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "## Bias: 15 pairs to find heads, 15 others to judge them" in ran.stdout
    assert all(f"\n| {name} | " in ran.stdout for name in ("lens", "written", "unembedding"))
    assert all(f"\n| {name} | " in ran.stdout for name in ("heads, lens", "words", "the model's next token"))
