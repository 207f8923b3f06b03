"""What can go wrong, as four kinds of error; only `alens.cli` turns them into exit codes.

Every message is one line: what is wrong, where, and what to do about it.
"""


class AlensError(Exception):
    """Base of every error that alens raises on purpose."""


class RequestError(AlensError):
    """What was asked for is wrong: a path, a setting, a layer that does not exist. Nothing was changed."""


class DamageError(AlensError):
    """Stored bytes are not the bytes that were written, or are numbers that cannot be.

    Files that are read whole are compared with the hashes in their records. Where a part of a file is read, its
    checksum and size are: what keeps both, such as the same file of another shard, only `alens verify` sees.
    """


class RunError(AlensError):
    """The request was right, but it failed while running: no space, no permission, a number that is not finite."""


class StoppedError(AlensError):
    """A signal or a time limit stopped the work after everything finished was saved; run again to go on."""
