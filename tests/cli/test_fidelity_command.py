"""`alens fidelity`: the tables, the JSON, and how it refuses."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from alens import open_cache
from alens.fidelity.measure import measure_fidelity
from alens.fidelity.reencode import reencode
from alens.fidelity.request import FidelityRequest

from ..outcomes import refusal

QUICK = ("--rows", 200, "--keep-bits", "3", "--top-k", "4", "--tail-samples", "4")
FIT = ("--probe-heads", 1, "--probe-rows", 2000)


def test_json_is_what_the_library_finds(run_alens: Any, demo_cache: Path, tmp_path: Path) -> None:
    code, out, err = run_alens(
        "fidelity", demo_cache, *QUICK, *FIT, "--json", "--work", tmp_path, "--device", "cpu"
    )
    assert code == 0, err
    request = FidelityRequest(
        rows=200, keep_bits=(3,), top_k=(4,), tail_samples=(4,), probe_heads=1, probe_rows=2000
    )
    with pytest.MonkeyPatch.context() as patch:
        for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
            patch.delenv(name, raising=False)
        expected = measure_fidelity(open_cache(demo_cache), request)
    assert json.loads(out) == expected.to_json()
    assert list(tmp_path.iterdir()) == []


def test_the_tables_hold_every_figure_in_80_columns(run_alens: Any, demo_cache: Path) -> None:
    code, out, err = run_alens("fidelity", demo_cache, *QUICK, *FIT, env={"COLUMNS": "60"})
    assert code == 0, err
    body = json.loads(run_alens("fidelity", demo_cache, *QUICK, *FIT, "--json").stdout)
    lines = out.splitlines()
    tables = lines[: next(number for number, line in enumerate(lines) if line.startswith("float16 log-prob"))]
    assert max(map(len, tables)) <= 80 and "…" not in out
    for mass in body["kept_mass"]:
        assert any(
            line.split() == [str(mass["k"]), f"{mass['mean']:.4f}", f"{mass['percentile_10']:.4f}"]
            for line in tables
        )
    four, stored = body["targets"]
    for form, name in ((four, []), (stored, ["stored"])):
        ratio = form["fit"]["ratio"]
        figures = [f"{form['kl_to_exact']:.4f}", f"{ratio['mean']:.4f}", f"{ratio['worst']:.4f}", "2.3"]
        expected = [
            str(form["top_k"]),
            str(form["tail_samples"]),
            *name,
            str(form["bytes_per_row"]),
            *figures,
        ]
        assert any(line.split() == expected for line in tables), expected
    for form in body["z"][1:]:
        error, ratio = form["error"], form["fit"]["ratio"]
        percents = [
            f"{100 * error[part][which]:.3f}" for part in ("z", "output") for which in ("mean", "worst")
        ]
        expected = [
            f"{form['bytes_per_row']:,.0f}",
            *percents,
            f"{ratio['mean']:.4f}",
            f"{ratio['worst']:.4f}",
            "2.3",
        ]
        assert any(line.split() == [*form["name"].split(), *expected] for line in tables), expected
    assert any(line.split()[:2] == ["float16", "(stored)"] for line in tables)
    assert f"({body['z'][-1]['error']['spread']['worst_head']})" in next(
        line for line in out.splitlines() if line.startswith("int8 beside the spread of z")
    )
    assert "KL to exact is not what a fit suffers: the samples are unbiased" in out
    assert (
        f"noise: the reference with another order of rows has ratio {body['other_order']['ratio']['mean']:.4f}"
        in out
    )
    assert "1 head (2.3) fitted to 2,016 rows" in out


def test_it_says_before_the_fits_how_long_they_take(run_alens: Any, demo_cache: Path) -> None:
    code, out, err = run_alens("fidelity", demo_cache, *QUICK, *FIT, "--held-out-rows", 1)
    assert code == 0
    (said,) = [line for line in err.splitlines() if "--no-fit leaves them out" in line]
    assert said.startswith("6 fits of 1 head to 2,016 rows, judged on 1,008: about ")
    assert "lenses: 1 head (2.3)" in out


def test_without_fits_their_columns_are_empty(run_alens: Any, demo_cache: Path) -> None:
    code, out, err = run_alens("fidelity", demo_cache, *QUICK, "--no-fit")
    assert code == 0 and "probe" not in err
    assert "KL to exact" in out and "lenses:" not in out and "noise:" not in out
    line = next(line for line in out.splitlines() if line.split()[:1] == ["int8"])
    assert line.split()[-2:] == ["-", "-"]


def test_without_the_exact_teacher_it_says_what_is_missing(
    run_alens: Any, demo_cache: Path, tmp_path: Path
) -> None:
    reencode(open_cache(demo_cache), tmp_path / "cache", shards=(0, 1), layers=(2,), exact_teacher=False)
    code, out, err = run_alens("fidelity", tmp_path / "cache", "--rows", 100, "--keep-bits", "2", *FIT)
    assert code == 0, err
    assert "a cache with --exact-teacher would add" in out
    assert "judged by the stored targets on the same 1,008 rows" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--top-k", "5000"), "top_k is 5000: demo has 4096 tokens in its vocabulary"),
        (("--keep-bits", "10"), "keep_bits is 10: give numbers in 0 to 9"),
        (("--tail-samples", "0"), "tail_samples is 0: it must be at least 1"),
        (("--rows", "0"), "0 is not in the range x>=1"),
        (("--work", "/nowhere/at/all"), "Directory '/nowhere/at/all' does not exist"),
        (("--device", "tpu"), "'tpu' is not one of 'auto', 'cpu', 'cuda'"),
    ],
)
def test_a_wrong_option_is_refused_in_one_line(
    run_alens: Any, demo_cache: Path, arguments: tuple[str, ...], message: str
) -> None:
    assert message in refusal(run_alens("fidelity", demo_cache, *arguments), 2)


def test_a_store_that_is_none_is_refused(run_alens: Any, tmp_path: Path) -> None:
    assert "is not a cache" in refusal(run_alens("fidelity", tmp_path), 2)


def test_a_launcher_of_several_processes_is_refused(run_alens: Any, demo_cache: Path) -> None:
    line = refusal(run_alens("fidelity", demo_cache, env={"WORLD_SIZE": "2"}), 2)
    assert "WORLD_SIZE is 2: alens fidelity is one process" in line


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_and_leaves_no_temporary_file(
    demo_cache: Path, tmp_path: Path, held_alens: Any, number: signal.Signals
) -> None:
    in_the_midst_of_a_fit = "alens-fidelity-*/lenses/fit.json"
    process = held_alens(tmp_path, in_the_midst_of_a_fit, "fidelity", demo_cache, *QUICK, "--work", tmp_path)
    process.send_signal(number)
    out, err = process.communicate(timeout=400)
    assert process.returncode == 75, err
    assert err.splitlines()[-1].startswith("alens: stopped; nothing of an unfinished report on")
    assert out == "" and list(tmp_path.iterdir()) == []
