"""Where and with what something was made: for plan and commit records, provenance and not identity."""

import platform
from importlib.metadata import version


def software() -> dict[str, str]:
    """Versions and host."""
    packages = ("alens", "torch", "transformer-lens", "transformers", "zarr", "numpy")
    return {
        "host": platform.node(),
        "python": platform.python_version(),
        "machine": platform.machine(),
        **{name: version(name) for name in packages},
    }
