"""Directions in a file, and files that do not hold any."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from alens.errors import DamageError, RequestError
from alens.rows import moments
from alens.store.cache_reader import open_cache
from alens.studies.basis import basis_file
from alens.studies.basis.result import BasisStudy
from alens.studies.basis.subspaces import Coordinates

from .examples import HEAD, LAYER


def test_directions_come_back_from_their_file(
    basis_study: BasisStudy, demo_cache: Path, tmp_path: Path
) -> None:
    path = tmp_path / "directions.safetensors"
    basis_file.put(path, basis_study, "abc")
    ((key, read),) = basis_file.load_directions(path).items()
    assert key == (LAYER, HEAD)
    basis = basis_study.heads[0].bases[0]
    torch.testing.assert_close(read.reads_KE, basis.reads_KE.float())
    torch.testing.assert_close(read.lens_influence_K, torch.tensor(basis.fidelity.lens_influence))
    # ablating with what was read is ablating in the study's own coordinates
    cache = open_cache(demo_cache)
    of_z = moments.of_cache(cache, [LAYER], cache.shards)
    coordinates = Coordinates.from_moments(of_z.mean_LHE[0, HEAD], of_z.covariance_LHEE[0, HEAD])
    z_NE = torch.from_numpy(cache.z(LAYER, [5, 70])[:, HEAD]).float()
    ablated_NE = z_NE - ((z_NE - read.mean_E) @ read.reads_KE[0])[:, None] * read.writes_KE[0]
    white_NE = (ablated_NE.double() - coordinates.mean_E) @ coordinates.into_EE
    before_NE = (z_NE.double() - coordinates.mean_E) @ coordinates.into_EE
    direction_E = basis.reads_KE[0] @ torch.linalg.inv(coordinates.into_EE)
    assert float((white_NE @ direction_E).abs().max()) < 1e-3 < float((before_NE @ direction_E).abs().max())


def test_the_same_directions_are_the_same_bytes(basis_study: BasisStudy, tmp_path: Path) -> None:
    path, files = tmp_path / "directions.safetensors", set()
    for _ in range(12):
        basis_file.put(path, basis_study, "abc")
        files.add(path.read_bytes())
    assert len(files) == 1


def test_what_is_not_a_file_of_directions_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "other.safetensors"
    save_file({"a": torch.zeros(1)}, other)
    half = tmp_path / "half.safetensors"
    save_file({"0.1.reads": torch.zeros(1)}, half, {"format": basis_file.FORMAT})
    (tmp_path / "empty.safetensors").touch()
    with pytest.raises(RequestError, match="does not hold a causal basis"):
        basis_file.load_directions(other)
    with pytest.raises(DamageError, match="is not whole"):
        basis_file.load_directions(half)
    for name in ("empty", "absent"):
        with pytest.raises(RequestError, match="cannot read"):
            basis_file.load_directions(tmp_path / f"{name}.safetensors")
