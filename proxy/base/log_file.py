"""A log file that other processes append to: opened without following links, kept below a bound, read from its end.

Overflow drops the oldest lines. Blocking, with a few system calls on a local file.
"""

import os
from pathlib import Path

LOG_BYTES = 4 * 1024 * 1024
LOG_KEPT_BYTES = 1024 * 1024
TAIL_BYTES = 2000


def open_log(path: Path) -> int:
    """Open a log for appending, 0600; a link in its place is refused."""
    return os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def trim_log(fd: int, limit_bytes: int = LOG_BYTES, kept_bytes: int = LOG_KEPT_BYTES) -> bool:
    """Drop the oldest lines of an append-mode log that grew beyond its bound; whether it did."""
    size = os.fstat(fd).st_size
    if size <= limit_bytes:
        return False
    tail = os.pread(fd, kept_bytes, size - kept_bytes)
    os.ftruncate(fd, 0)
    os.write(fd, b"... older lines were dropped ...\n" + tail.partition(b"\n")[2])
    return True


def trim(path: Path) -> None:
    """`trim_log` for a log that is not open here; made when it does not exist. Raises OSError."""
    fd = open_log(path)
    try:
        trim_log(fd)
    finally:
        os.close(fd)


def tail(path: Path, limit_bytes: int = TAIL_BYTES) -> str:
    """At most that many bytes from its end, whole lines only; empty when there is no readable log."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            size = os.fstat(fd).st_size
            data = os.pread(fd, limit_bytes, max(0, size - limit_bytes))
        finally:
            os.close(fd)
    except OSError:
        return ""
    if size > limit_bytes:
        data = data.partition(b"\n")[2]
    return data.decode(errors="replace").strip()
