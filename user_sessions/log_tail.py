"""The last lines of a session's log, for whoever has to say why a session did not come up."""

import os
from pathlib import Path

TAIL_BYTES = 2000


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
