"""Large libraries are imported while Python's garbage collector rests.

In: a block of imports. Out: the same modules, sooner. transformers and TransformerLens make hundreds of thousands of
objects that live as long as the process; while they are made, the collector goes through them again and again, for
nothing: docs/decisions/0028.
"""

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def importing() -> Iterator[None]:
    """The collector rests within the block, and is afterwards as it was."""
    works = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if works:
            gc.enable()
