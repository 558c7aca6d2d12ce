"""Sockets that share an address, and one that does not."""

from __future__ import annotations

import socket
from contextlib import ExitStack

import pytest

from nexus_proxy.workers.sockets import Listeners


def test_every_set_of_sockets_has_the_same_port_and_connections_spread() -> None:
    listeners = Listeners("127.0.0.1", 0)
    with ExitStack() as stack:
        sets = [[stack.enter_context(each) for each in listeners.open()] for _ in range(2)]
        assert {each.getsockname()[1] for one in sets for each in one} == {listeners.port}
        for _ in range(64):
            stack.enter_context(socket.create_connection(("127.0.0.1", listeners.port)))
        accepted = [_accept_all(each, stack) for one in sets for each in one]
        assert sum(accepted) == 64
        assert min(accepted) > 0


def _accept_all(listening: socket.socket, stack: ExitStack) -> int:
    count = 0
    while True:
        try:
            connection, _ = listening.accept()
        except BlockingIOError:
            return count
        stack.enter_context(connection)
        count += 1


def test_a_port_with_a_listener_is_refused_even_if_that_would_share() -> None:
    first = Listeners("127.0.0.1", 0)
    with ExitStack() as stack:
        for each in first.open():
            stack.enter_context(each)
        with pytest.raises(OSError, match="in use"):
            Listeners("127.0.0.1", first.port)


def test_a_name_with_several_addresses_has_one_port_on_all() -> None:
    listeners = Listeners("localhost", 0)
    with ExitStack() as stack:
        sockets = [stack.enter_context(each) for each in listeners.open()]
        assert {each.getsockname()[1] for each in sockets} == {listeners.port}
        known = {found[4][0] for found in socket.getaddrinfo("localhost", 1)}
        assert {each.getsockname()[0] for each in sockets} == known
