"""Files of torch are read for their tensors, and nothing in them is run."""

import pickle
import tracemalloc
import zipfile
from pathlib import Path

import pytest
import torch

from alens.errors import DamageError, RequestError
from alens.exchange.weights_only import is_whole, load_weights

from ..malicious import Malicious


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "before 1.6"])
def test_a_malicious_file_is_refused_in_one_line_and_runs_nothing(tmp_path: Path, legacy: bool) -> None:
    body = {
        "state_dict": {"attn_lens.linears.0.weight": torch.zeros(2)},
        "callbacks": Malicious(tmp_path / "ran"),
    }
    torch.save(body, tmp_path / "x.ckpt", _use_new_zipfile_serialization=not legacy)
    with pytest.raises(
        RequestError, match=r"x\.ckpt holds more than weights .*mkdir.*code from a file is never run"
    ) as refused:
        load_weights(tmp_path / "x.ckpt")
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "ran").exists()
    # The file is a real attack: a reader that trusts it runs the code.
    torch.load(tmp_path / "x.ckpt", weights_only=False)
    assert (tmp_path / "ran").exists()


def test_a_bare_pickle_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.pt").write_bytes(pickle.dumps(Malicious(tmp_path / "ran")))
    with pytest.raises((RequestError, DamageError), match=r"x\.pt"):
        load_weights(tmp_path / "x.pt")
    assert not (tmp_path / "ran").exists()


def test_a_whole_saved_module_is_refused(tmp_path: Path) -> None:
    """The form in which the published code saves extracted lenses."""
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


def test_a_tensor_is_not_a_dictionary_of_weights(tmp_path: Path) -> None:
    torch.save(torch.zeros(2), tmp_path / "x.pt")
    with pytest.raises(RequestError, match="holds a Tensor, not a dictionary"):
        load_weights(tmp_path / "x.pt")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"x\.pt is not there"):
        load_weights(tmp_path / "x.pt")


def deflated(path: Path) -> Path:
    """The archive with its data compressed, as torch never writes it."""
    out = path.with_name("deflated.pt")
    with zipfile.ZipFile(path) as stored, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for entry in stored.infolist():
            archive.writestr(entry.filename, stored.read(entry))
    return out


def test_an_archive_that_holds_more_than_its_bytes_is_not_read(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(25_000_000)}, tmp_path / "x.pt")
    bomb = deflated(tmp_path / "x.pt")
    assert bomb.stat().st_size < 200_000
    tracemalloc.start()
    with pytest.raises(
        DamageError,
        match=r"deflated\.pt has [\d,]+ bytes and says it holds 100,\d{3},\d{3}, compressed or twice",
    ):
        load_weights(bomb)
    assert tracemalloc.get_traced_memory()[1] < 5_000_000
    tracemalloc.stop()


def test_an_archive_is_one_by_its_first_bytes(tmp_path: Path) -> None:
    """zipfile looks at the end of a file, torch at its beginning; a file that the two read differently is not mapped."""
    torch.save({"weight": torch.zeros(1000)}, tmp_path / "x.pt")
    with (tmp_path / "x.pt").open("ab") as file:
        file.write(b"\0" * 70_000)
    with pytest.raises(DamageError, match="cannot be read as weights"):
        load_weights(tmp_path / "x.pt")


@pytest.mark.parametrize(
    ("tensor", "expected"),
    [
        (torch.zeros(3, 4), True),
        (torch.zeros(8, 4)[2:5].T, True),
        (torch.zeros(1).expand(3, 4), False),
        (torch.zeros(4).expand(3, 4), False),
        (torch.zeros(3, 4).to_sparse(), False),
        (torch.zeros(3, 4, device="meta"), False),
    ],
)
def test_a_tensor_is_whole_when_it_holds_its_numbers(tensor: torch.Tensor, expected: bool) -> None:
    assert is_whole(tensor) is expected
