"""What can go wrong, as four kinds of error; only `alens.cli` turns them into exit codes.

Every message is one line: what is wrong, where, and what to do about it.
"""


class AlensError(Exception):
    """Base of every error that alens raises on purpose."""


class RequestError(AlensError):
    """The request is wrong: a path, a setting, a layer that does not exist. Nothing was changed."""


class DamageError(AlensError):
    """Stored bytes differ from those that were written, or hold impossible numbers.

    Files that are read whole are compared with the hashes in their records. Where only a part of a file is read, its
    checksum and size are checked. A change that keeps both, such as a file swapped with that of another shard, is seen
    by `alens verify` alone.
    """


class RunError(AlensError):
    """The request was right but failed while running: no space, no permission, a number that is not finite."""


class StoppedError(AlensError):
    """A signal or a time limit stopped the work. Everything finished was saved: run again to go on."""
