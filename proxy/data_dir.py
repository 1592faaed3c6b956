"""The data directory: made private, checked for writing, held by one server at a time."""

import fcntl
import os
from pathlib import Path
from typing import IO

from proxy.base.errors import ConfigError


def prepare(path: Path) -> None:
    """Make the directory 0700 with its folders. Raises ConfigError when it cannot be written."""
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        for name in ("users", "logs", "run", "public"):
            (path / name).mkdir(exist_ok=True, mode=0o755 if name == "public" else 0o700)
        probe = path / f".write-test-{os.getpid()}"
        probe.write_bytes(b"x")
        probe.unlink()
    except OSError as error:
        raise ConfigError(
            f"The data directory {path} cannot be written: {error.strerror}. Choose another with --data-dir, "
            "or change its owner."
        ) from error


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
