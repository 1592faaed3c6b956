"""Attempts on sockets and the network. Standard library only."""

import contextlib
import ctypes
import errno
import os
import socket
from pathlib import Path

from .means import (  # noqa: TID252 - a pack has a name made of its path
    FAST_OPEN,
    MPTCP,
    URING,
    Facts,
    called,
    changed,
    libc,
)


def try_connect_to_another_session(facts: Facts) -> object:
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect(facts["ann"]["socket"])


def try_connect_to_the_session_host(facts: Facts) -> object:
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect(str(Path(facts["run"], "host.sock")))


def try_send_a_datagram_to_a_unix_socket(facts: Facts) -> object:
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with one, other:
        return one.sendto(b"x", facts["datagram_socket"])


def try_connect_an_inherited_socket(facts: Facts) -> object:
    """The session's own listener, aimed at somebody else's socket."""
    for fd in range(3, 64):
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(fd)) as mine:
            if mine.family == socket.AF_UNIX and mine.getsockname() and not mine.getsockname().startswith("\0"):
                try:
                    mine.getpeername()
                except OSError:
                    return mine.connect(facts["ann"]["socket"])
    raise OSError(errno.EACCES, "there is none, or it does not connect")


def try_listen_on_a_unix_socket(facts: Facts) -> object:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(Path(facts["mine"]["temp"], "s")))
        return listener.listen()


def try_connect_to_a_gpu_instance(facts: Facts) -> object:
    with socket.create_connection(("127.0.0.1", facts["port"]), 5):
        return True


def try_connect_by_fast_open(facts: Facts) -> object:
    with socket.socket() as client:
        return client.sendto(b"x", FAST_OPEN, ("127.0.0.1", facts["port"]))


def try_connect_by_multipath_tcp(facts: Facts) -> object:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, MPTCP) as client:
        return client.connect(("127.0.0.1", facts["port"]))


def try_send_a_datagram(facts: Facts) -> object:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        return client.sendto(b"x", ("127.0.0.1", facts["port"]))


def try_listen_on_tcp(_facts: Facts) -> object:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        with socket.create_connection(listener.getsockname(), 5):
            return True


def try_listen_on_tcp_unbound(_facts: Facts) -> object:
    with socket.socket() as listener:
        listener.listen()
        return changed(listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 1)


def try_make_a_netlink_socket(_facts: Facts) -> object:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW):
        return True


def try_make_a_packet_socket(_facts: Facts) -> object:
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW):
        return True


def try_use_io_uring(_facts: Facts) -> object:
    parameters = ctypes.create_string_buffer(256)
    return os.close(called(libc.syscall(URING, 4, parameters)))
