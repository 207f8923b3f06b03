"""The ports that tests lease: free, and nobody else's."""

import socket

from . import ports


def test_two_leases_have_no_port_in_common() -> None:
    with ports.leased() as one, ports.leased() as other:
        assert len(one) == len(other) == ports.SIZE - 1
        assert not set(one) & set(other)


def test_a_leased_port_can_be_bound_and_a_taken_one_is_not_leased() -> None:
    with ports.leased() as row:
        taken = socket.socket()
        taken.bind(("127.0.0.1", row[50]))
    with taken, ports.leased() as other:
        assert row[50] not in other
