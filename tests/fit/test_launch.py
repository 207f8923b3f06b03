"""Which process this is, and the refusal of processes that were started together but not told of each other."""

import pytest

from alens.errors import RequestError
from alens.fit import launch
from alens.fit.launch import check_alone, this_launch

WHOLE = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "MASTER_ADDR": "node07", "MASTER_PORT": "29511"}
SIZES = [size for size, *_ in launch.LAUNCHERS]


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*launch.VARIABLES, *SIZES, "LOCAL_WORLD_SIZE", "SLURM_NTASKS"):
        monkeypatch.delenv(name, raising=False)


def test_it_is_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in WHOLE.items():
        monkeypatch.setenv(name, value)
    launched = this_launch()
    assert (launched.rank, launched.world_size, launched.local_rank) == (1, 2, 1)
    assert (launched.address, launched.port, launched.all_local) == ("node07", 29511, False)


@pytest.mark.parametrize("address", ["localhost", "127.0.0.1", "127.0.1.1", "::1"])
def test_at_a_loopback_all_are_local(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    for name, value in {**WHOLE, "MASTER_ADDR": address}.items():
        monkeypatch.setenv(name, value)
    assert this_launch().all_local


def test_torchrun_says_how_many_are_local(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in WHOLE.items():
        monkeypatch.setenv(name, value)
    for count, all_local in (("1", False), ("2", True)):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", count)
        assert this_launch().all_local == all_local


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("RANK", "2", "RANK is 2 and WORLD_SIZE 2 in the environment: ranks go from 0 to WORLD_SIZE - 1"),
        ("RANK", "-1", "RANK is '-1' in the environment: it must be a number"),
        ("WORLD_SIZE", "0", "RANK is 1 and WORLD_SIZE 0"),
        ("MASTER_PORT", "0", "MASTER_PORT is 0 in the environment: a port is from 1 to 65535"),
        ("MASTER_PORT", "65536", "MASTER_PORT is 65536"),
        ("MASTER_PORT", "http", "MASTER_PORT is 'http' in the environment: it must be a number"),
    ],
)
def test_what_makes_no_sense_is_refused(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, says: str
) -> None:
    for key, text in {**WHOLE, name: value}.items():
        monkeypatch.setenv(key, text)
    with pytest.raises(RequestError) as caught:
        this_launch()
    assert str(caught.value).startswith(says)


@pytest.mark.parametrize(("size", "launcher", "rank", "local_rank"), launch.LAUNCHERS)
def test_processes_that_each_would_do_it_all_are_refused_with_the_line_that_is_right(
    monkeypatch: pytest.MonkeyPatch, size: str, launcher: str, rank: str, local_rank: str
) -> None:
    monkeypatch.setenv(size, "1")
    check_alone("fit")
    monkeypatch.setenv(size, "4")
    with pytest.raises(RequestError) as caught:
        check_alone("fit")
    said = str(caught.value)
    assert said.startswith(f"{launcher} started 4 processes ({size}), and each would do the whole fit: ")
    assert f"bash -c 'RANK=${rank} WORLD_SIZE=${size} LOCAL_RANK=${local_rank} MASTER_ADDR=" in said
    with pytest.raises(RequestError, match=r"each would do the whole sweep: take --worker; or unset "):
        check_alone("sweep", "take --worker")
    monkeypatch.setenv("RANK", "0")
    check_alone("fit")


def test_a_batch_script_of_one_process_is_none_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slurm sets SLURM_NTASKS for the whole job, and SLURM_PROCID even without srun."""
    monkeypatch.setenv("SLURM_NTASKS", "4")
    monkeypatch.setenv("SLURM_PROCID", "0")
    check_alone("fit")
