"""The data directory: made private, checked for writing, held by one server at a time."""

import fcntl
import os
from pathlib import Path
from typing import IO

from proxy.base.errors import ConfigError

PRIVATE = ("users", "logs", "run", "engines", "cache")
OURS = "cluster.db"


def prepare(path: Path) -> None:
    """Make the directory 0700 with its folders. Raises ConfigError when it cannot be written."""
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        # Somebody's home or /srv, given by mistake or on purpose, is not ours to close.
        if (path / OURS).exists() or not any(path.iterdir()):
            _close(path)
        for name in PRIVATE:
            (path / name).mkdir(exist_ok=True, mode=0o700)
            _close(path / name)
        (path / "public").mkdir(exist_ok=True, mode=0o755)
        probe = path / f".write-test-{os.getpid()}"
        probe.write_bytes(b"x")
        probe.unlink()
    except OSError as error:
        raise ConfigError(
            f"The data directory {path} cannot be written: {error.strerror}. Choose another with --data-dir, "
            "or change its owner."
        ) from error


def _close(path: Path) -> None:
    """To its owner alone. A folder of somebody else, such as a volume's root, stays as that one made it."""
    if path.stat().st_uid == os.geteuid() and path.stat().st_mode & 0o077:
        path.chmod(0o700)


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
