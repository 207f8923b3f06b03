"""Host and versions, for plans and commit records: where something came from, and no part of what it is."""

import platform
from importlib.metadata import version

PACKAGES = ("alens", "torch", "transformer-lens", "transformers", "zarr", "numpy")


def software() -> dict[str, str]:
    """The host, and the versions of Python and of the packages that numbers depend on."""
    return {
        "host": platform.node(),
        "python": platform.python_version(),
        "machine": platform.machine(),
        **{name: version(name) for name in PACKAGES},
    }
