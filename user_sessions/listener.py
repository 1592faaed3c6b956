"""A session's Unix socket, made before the sandbox closes: afterwards a session can make no socket of that kind.

Standard library only, as everything that runs in a session before its runtime does.
"""

import os
import socket
from pathlib import Path


def bind(path: Path) -> socket.socket:
    """A socket bound to `path` with mode 0600, not listening yet; what an earlier session left there goes. Raises
    OSError."""
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        before = os.umask(0o177)
        try:
            listener.bind(str(path))
        finally:
            os.umask(before)
    except OSError:
        listener.close()
        raise
    return listener
