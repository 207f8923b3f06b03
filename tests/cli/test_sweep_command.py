"""`alens sweep`: what it writes and says, how it stops, and how it refuses."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from ..outcomes import refusal

SMALL = "layers = [3]\nheads = [1]\nbatch-rows = 64\neval_rows = 200\nsteps = 4\n"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "sweep.toml"
    file.write_text(SMALL + "[grid]\nlr = [0.01, 0.1]\n")
    return file


def test_it_fits_all_variants_and_shows_and_writes_the_table(
    run_alens: Any, demo_cache: Path, tmp_path: Path, config: Path
) -> None:
    out = tmp_path / "out"
    code, said, err = run_alens("sweep", config, demo_cache, out)
    assert code == 0, err
    lines = said.splitlines()
    assert [line.split()[0] for line in lines if line.startswith("lr=") and ":" not in line.split()[0]] == [
        "lr=0.01",
        "lr=0.1",
    ]
    assert "on 200 rows of 16 sequences" in said and f"written to {out}: table.md" in said
    assert "lr=0.1: step 4 layer 3 held-out loss" in err
    assert sorted(path.name for path in out.iterdir()) == sorted(
        ["sweep.json", "lr=0.01", "lr=0.1", "table.json", "table.csv", "heads.csv", "table.md"]
    )
    again = run_alens("sweep", config, demo_cache, out, "--json", "--against", "lr=0.01")
    body = json.loads(again.stdout)
    assert body["against"] == "lr=0.01" and [row["name"] for row in body["rows"]] == ["lr=0.01", "lr=0.1"]
    assert body == json.loads((out / "table.json").read_text())


def test_80_columns_hold_the_table(run_alens: Any, demo_cache: Path, tmp_path: Path, config: Path) -> None:
    """As on a terminal; what stands beside the KL elsewhere stands below it, and nothing is cut."""
    config.write_text(f'{config.read_text()}\n[[variant]]\nname = "learning_rate=0.05,seed=1"\nlr = 0.05\n')
    assert run_alens("sweep", config, demo_cache, tmp_path / "out").code == 0
    code, said, err = run_alens(
        "sweep", config, demo_cache, tmp_path / "out", "--table", env={"COLUMNS": "80"}
    )
    assert code == 0, err
    drawn = said[: said.index("Held-out KL")]
    assert max(map(len, drawn.splitlines())) <= 80 and "…" not in drawn
    assert "learning_rate=0.05, " in drawn and "\nseed=1 " in drawn
    for row in json.loads((tmp_path / "out" / "table.json").read_text())["rows"]:
        low, high = row["interval"]
        (worst,) = row["heads"]
        for part in (
            row["name"].split(",")[-1],
            f"{row['kl']:.4f}",
            f"{low:.4f} to {high:.4f}",
            "3.1:",
            f"{'>' if worst['kl'] > row['mean_output_kl'] else ''}{worst['kl']:.4f}",
            f"{row['mean_output_kl']:.4f}",
            "256",
        ):
            assert re.search(rf"(?m)(^| ){re.escape(part)}( |$)", drawn), drawn


def test_the_time_limit_ends_it_with_75_and_the_table_can_be_had(
    run_alens: Any, demo_cache: Path, tmp_path: Path, config: Path
) -> None:
    config.write_text(
        config.read_text().replace("steps = 4", "steps = 1000000\ntolerance = 0")
    )  # nothing converges
    out = tmp_path / "out"
    for _ in range(2):
        line = refusal(
            run_alens("sweep", config, demo_cache, out, "--max-minutes", "0.03"), 75, after_log=True
        )
        assert line.startswith("stopped with 0 of 2 variants finished") and line.endswith(
            "run again to go on"
        )
    code, said, _ = run_alens("sweep", config, demo_cache, out, "--table")
    assert code == 0 and "2 of 2 variants are not finished: lr=0.01, lr=0.1" in said


def test_each_worker_does_its_part(run_alens: Any, demo_cache: Path, tmp_path: Path, config: Path) -> None:
    out = tmp_path / "out"
    first = run_alens("sweep", config, demo_cache, out, "--worker", "1/2")
    assert first.code == 0 and "1 of 2 variants are not finished: lr=0.01" in first.stdout
    assert not (out / "lr=0.01").exists()
    second = run_alens("sweep", config, demo_cache, out, "--worker", "0/2")
    assert second.code == 0 and "not finished" not in second.stdout


@pytest.mark.parametrize(
    ("text", "arguments", "message"),
    [
        ("colour = 1\n", (), "has the unknown key 'colour': valid keys are batch_rows,"),
        ("[grid]\nlayers = [[0], [9]]\n", (), "1 of 2 variants cannot be fitted, and none was: layers=9: layer 9 is not"),
        ("", ("--worker", "2/2"), "worker 2/2 does not exist"),
        ("", ("--device", "tpu"), "device 'tpu' is unknown"),
        ("", ("--table",), "is not a sweep (it has no sweep.json)"),
        ("", ("--at-once", "0"), "0 is not in the range x>=1"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_refused_in_one_line_and_nothing_is_trained(
    run_alens: Any, demo_cache: Path, tmp_path: Path, text: str, arguments: tuple[str, ...], message: str
) -> None:
    config = tmp_path / "sweep.toml"
    config.write_text(SMALL.replace("layers = [3]\n", "") + text)
    assert message in refusal(run_alens("sweep", config, demo_cache, tmp_path / "out", *arguments), 2)
    assert not list((tmp_path / "out").glob("*/*"))


def test_another_configuration_is_refused(
    run_alens: Any, demo_cache: Path, tmp_path: Path, config: Path
) -> None:
    out = tmp_path / "out"
    assert run_alens("sweep", config, demo_cache, out).code == 0
    config.write_text(config.read_text().replace("0.1]", "0.2]"))
    for more in ((), ("--table",)):
        line = refusal(run_alens("sweep", config, demo_cache, out, *more), 2)
        assert "holds another sweep: it has no variant lr=0.2; its variant lr=0.1 is not asked for" in line
