"""The server's secret: one file, 0600, made once. It signs login cookies; whoever reads it can forge them.

Nothing else is derived from it, so losing it only signs everybody out.
"""

import contextlib
import os
import secrets
from pathlib import Path

from proxy.base.errors import ConfigError

KEY_BYTES = 32


def load_or_create(path: Path) -> bytes:
    """The key in `path`, created when there is none. Safe against two processes starting at once."""
    try:
        if not path.exists():
            _create(path)
        # A copied or restored data directory often comes back world-readable.
        if path.stat().st_mode & 0o077:
            path.chmod(0o600)
        key = bytes.fromhex(path.read_text().strip())
    except OSError as error:
        raise ConfigError(f"The key file {path} is not usable: {error.strerror}. Check its owner.") from error
    except ValueError as error:
        raise ConfigError(f"The key file {path} is damaged. Delete it; everybody then signs in again.") from error
    if len(key) < KEY_BYTES:
        raise ConfigError(f"The key file {path} is too short. Delete it; everybody then signs in again.")
    return key


def _create(path: Path) -> None:
    # A full file under another name, then a link that fails when somebody was faster: no reader ever sees half a key.
    partial = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_hex(KEY_BYTES) + "\n")
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(partial, path)
    finally:
        partial.unlink(missing_ok=True)
