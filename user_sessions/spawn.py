"""Start a process that is meant to outlive us.

Through posix_spawn and not subprocess: a Popen object would complain when it is collected before its process ended,
and there is nobody to keep it.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from proxy.base.errors import Unavailable
from proxy.base.processes import Daemon, start_time


def spawn(command: Sequence[str], log: Path, env: Mapping[str, str], stdin: int | None = None) -> Daemon:
    """Start it in a session of its own (Ctrl-C in our terminal must not reach it), its output appended to `log`."""
    appending = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW
    null = (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)
    actions = [
        null if stdin is None else (os.POSIX_SPAWN_DUP2, stdin, 0),
        (os.POSIX_SPAWN_OPEN, 1, str(log), appending, 0o600),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    try:
        pid = os.posix_spawn(command[0], list(command), env, file_actions=actions, setsid=True)
    except OSError as error:
        raise Unavailable(f"No process could be started: {error.strerror}. Its log would be {log}.") from error
    return Daemon(pid, start_time(pid) or 0)
