"""Mean and covariance of a site that stage one counts no statistics of: `resid_post`, `mlp_out`.

In: a `RowReader` of the site, a layer, the training shards. Out: moments over enough rows of the first shards.
Shapes: N rows, E width of the site's values.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from alens.rows.columns import RowReader
from alens.store.arrays import site_name

ROWS_PER_NUMBER = 64
"""Rows for each of the E dimensions: the smallest directions of a covariance need some."""


def site_moments(
    reader: RowReader, layer: int, shards: Sequence[int]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """(1, E) mean and (1, E, E) covariance, as of one head."""
    name = site_name(layer, reader.site)
    total: npt.NDArray[np.float64] | float = 0.0
    outer: npt.NDArray[np.float64] | float = 0.0
    count = 0
    for shard in shards:
        values_NE = reader.shard(shard).by_name[name][:, 0].astype(np.float64)
        total, outer, count = (
            total + values_NE.sum(0),
            outer + values_NE.T @ values_NE,
            count + len(values_NE),
        )
        if count >= ROWS_PER_NUMBER * values_NE.shape[1]:
            break
    mean_E = np.asarray(total) / count
    return mean_E[None], (np.asarray(outer) / count - np.outer(mean_E, mean_E))[None]
