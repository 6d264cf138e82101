"""A held port is nobody else's, but the part's that it is held for."""

from __future__ import annotations

import socket

import pytest

from streams.local.ports import LOOPBACK, HeldPort, PortTaken


def listen(port: int) -> socket.socket:
    """Listen as servers do, with SO_REUSEADDR."""
    server = socket.socket()
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.bind((LOOPBACK, port))
    server.listen()
    return server


def test_a_server_may_listen_on_a_held_port_again_and_again() -> None:
    with HeldPort() as port:
        for _ in range(2):
            with listen(port.number), socket.create_connection((LOOPBACK, port.number), timeout=1):
                pass


def test_held_ports_differ_and_keep_their_number() -> None:
    with HeldPort() as first, HeldPort() as second:
        numbers = first.number, second.number
        assert numbers[0] != numbers[1]
        first.release()
        assert first.hold() == numbers[0]
        assert first.address == f"127.0.0.1:{numbers[0]}"


def test_an_ordinary_bind_does_not_get_a_held_port() -> None:
    with HeldPort() as port, socket.socket() as other, pytest.raises(OSError, match="Address already in use"):
        other.bind((LOOPBACK, port.number))


def test_a_port_that_somebody_listens_on_cannot_be_held() -> None:
    with socket.create_server((LOOPBACK, 0)) as server:
        taken = HeldPort(server.getsockname()[1])
        with pytest.raises(PortTaken, match="is used by another process"):
            taken.hold()


def test_a_port_has_no_address_before_it_is_chosen() -> None:
    with pytest.raises(RuntimeError, match="not been chosen"):
        _ = HeldPort().address
