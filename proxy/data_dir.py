"""The data directory: made private, checked for writing, held by one server at a time."""

import fcntl
import os
from pathlib import Path
from typing import IO

from proxy.base.errors import ConfigError
from user_sessions import uids
from user_sessions.directories import PASSABLE as PASSABLE_MODE
from user_sessions.directories import PRIVATE as PRIVATE_MODE

PRIVATE = ("users", "logs", "run", "engines", "cache")
PASSABLE = ("users", "cache")
OURS = "cluster.db"
KEY = "secret.key"


def prepare(path: Path) -> None:
    """Make the directory with its folders, 0700, or passable where sessions have user ids of their own. Raises
    ConfigError when it cannot be written."""
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        passable = PASSABLE_MODE if uids.in_force(path) else PRIVATE_MODE  # sessions that still run must get through
        # Somebody's home or /srv, given by mistake or on purpose, is not ours to close.
        if (path / OURS).exists() or not any(path.iterdir()):
            _close(path, passable)
        for name in PRIVATE:
            (path / name).mkdir(exist_ok=True, mode=0o700)
            _close(path / name, passable if name in PASSABLE else PRIVATE_MODE)
        (path / "public").mkdir(exist_ok=True, mode=0o755)
        probe = path / f".write-test-{os.getpid()}"
        probe.write_bytes(b"x")
        probe.unlink()
    except OSError as error:
        raise ConfigError(
            f"The data directory {path} cannot be written: {error.strerror}. Choose another with --data-dir, "
            "or change its owner."
        ) from error


def _close(path: Path, mode: int) -> None:
    """To its owner alone. A folder of somebody else, such as a volume's root, stays as that one made it."""
    if path.stat().st_uid == os.geteuid() and path.stat().st_mode & 0o777 & ~mode:
        path.chmod(mode)


def hold(path: Path) -> IO[bytes]:
    """Lock the directory until the returned file is closed. Raises ConfigError when another server has it."""
    lock = (path / "run" / "server.lock").open("ab")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.close()
        raise ConfigError(f"Another server uses the data directory {path}. Stop it, or choose another one.") from error
    return lock


def held(path: Path) -> bool:
    """Whether a server runs on the directory."""
    try:
        with (path / "run" / "server.lock").open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
