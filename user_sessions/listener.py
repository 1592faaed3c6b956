"""A session's Unix socket, made before the sandbox closes: afterwards a session can make no socket of that kind.

Standard library only, as everything that runs in a session before its runtime does.
"""

import os
import socket
from pathlib import Path

BACKLOG = 128


def bind(path: Path) -> socket.socket:
    """A socket that listens on `path`, 0600; what an earlier session left there goes. Raises OSError.

    It listens at once: one that is only bound could still be connected to somebody else's.
    """
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        before = os.umask(0o177)
        try:
            listener.bind(str(path))
        finally:
            os.umask(before)
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener
