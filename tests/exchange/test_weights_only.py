"""Torch files are read for their tensors, and what else they hold is never run."""

import os
import pickle
from pathlib import Path

import pytest
import torch

from alens.errors import DamageError, RequestError
from alens.exchange.weights_only import load_weights


class Malicious:
    """Unpickled, it makes a directory."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "before 1.6"])
def test_a_malicious_file_is_refused_in_one_line_and_runs_nothing(tmp_path: Path, legacy: bool) -> None:
    body = {
        "state_dict": {"attn_lens.linears.0.weight": torch.zeros(2)},
        "callbacks": Malicious(tmp_path / "ran"),
    }
    torch.save(body, tmp_path / "x.ckpt", _use_new_zipfile_serialization=not legacy)
    with pytest.raises(
        RequestError, match=r"x\.ckpt holds more than weights .*mkdir.*code from a file is never run"
    ) as found:
        load_weights(tmp_path / "x.ckpt")
    assert "\n" not in str(found.value)
    assert not (tmp_path / "ran").exists()
    # The file is what it says: a reader that trusts it runs it.
    torch.load(tmp_path / "x.ckpt", weights_only=False)
    assert (tmp_path / "ran").exists()


def test_a_bare_pickle_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.pt").write_bytes(pickle.dumps(Malicious(tmp_path / "ran")))
    with pytest.raises((RequestError, DamageError), match=r"x\.pt"):
        load_weights(tmp_path / "x.pt")
    assert not (tmp_path / "ran").exists()


def test_a_whole_saved_module_is_refused(tmp_path: Path) -> None:
    """As the published code saves extracted lenses."""
    torch.save(torch.nn.Linear(2, 2), tmp_path / "lens.pt")
    with pytest.raises(RequestError, match=r"torch\.nn\.modules\.linear\.Linear.*save the state dict alone"):
        load_weights(tmp_path / "lens.pt")


def test_a_file_that_is_cut_is_damage(tmp_path: Path) -> None:
    torch.save({"w": torch.zeros(1000)}, tmp_path / "x.pt")
    (tmp_path / "x.pt").write_bytes((tmp_path / "x.pt").read_bytes()[:-600])
    with pytest.raises(DamageError, match=r"x\.pt cannot be read as weights"):
        load_weights(tmp_path / "x.pt")


@pytest.mark.parametrize("content", [b"", b"hello", b"\x80\x02"])
def test_what_torch_did_not_write_is_damage(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.pt").write_bytes(content)
    with pytest.raises(DamageError, match="it is cut or altered, or torch did not write it"):
        load_weights(tmp_path / "x.pt")


def test_a_tensor_is_no_dictionary_of_weights(tmp_path: Path) -> None:
    torch.save(torch.zeros(2), tmp_path / "x.pt")
    with pytest.raises(RequestError, match="holds one Tensor and no dictionary"):
        load_weights(tmp_path / "x.pt")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"x\.pt is not there"):
        load_weights(tmp_path / "x.pt")
