"""A user's file from its first byte until it has its name: partial files, and their atomic arrival. Blocking.

Partial files lie in one folder of the user's directory, under names that begin with their job's key, so that whatever a
killed process leaves is found and removed.
"""

import contextlib
import errno
import os
import secrets
from pathlib import Path
from typing import IO

from backend_pool.files.user_files import ATTEMPTS, disk_error
from proxy.base.errors import DiskFull
from proxy.base.file_owner import as_owner_of
from proxy.base.user_file_open import create_file, open_file, remove_file

INCOMING = ".incoming"
NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)


def create_incoming(root: Path, key: str) -> tuple[Path, IO[bytes]]:
    """A file to write until it is whole. One place, and a name that begins with `key`, so that a crash leaves nothing.

    The rest of the name is not to be guessed: a session that knew it could put something there again and again.
    """
    for _ in range(ATTEMPTS):
        path = root / INCOMING / f"{key}.{secrets.token_hex(8)}.part"
        try:
            with as_owner_of(root):
                path.parent.mkdir(exist_ok=True)
            return path, create_file(root, path, replace=False)
        except FileNotFoundError:  # another job of this user has just removed the folder
            continue
        except OSError as error:
            raise disk_error(error) from error
    raise DiskFull(f"The folder {INCOMING} cannot be made.")


def write(out: IO[bytes], chunk: bytes) -> None:
    """Write on; raises DiskFull."""
    try:
        out.write(chunk)
    except OSError as error:
        raise disk_error(error) from error


def close(out: IO[bytes]) -> None:
    """Write what was buffered; raises DiskFull."""
    try:
        out.close()
    except OSError as error:
        raise disk_error(error) from error


def clear_incoming(root: Path, key: str) -> None:
    """Remove partial files whose key begins with `key`."""
    folder = root / INCOMING
    with contextlib.suppress(OSError), as_owner_of(root):  # none there, or another job's are
        for name in [entry.name for entry in folder.iterdir() if entry.name.startswith(key)]:
            with contextlib.suppress(OSError):
                remove_file(root, folder / name)
        folder.rmdir()


def arrive(partial: Path, target: Path, *, durable: bool) -> bool:
    """Give a complete partial file its name; False when another file took that name meanwhile, which is kept."""
    root = partial.parent.parent  # the folder of incoming files lies in the user's own
    try:
        if durable:
            make_durable(root, partial)
        with as_owner_of(root):
            return _arrive(root, partial, target)
    except OSError as error:
        raise disk_error(error) from error


def make_durable(root: Path, path: Path) -> None:
    """Have a file on the disk itself. Raises OSError."""
    with open_file(root, path) as content:
        os.fsync(content.fileno())


def _arrive(root: Path, partial: Path, target: Path) -> bool:
    try:
        os.link(partial, target)
        partial.unlink()
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        return _arrive_unlinked(root, partial, target)
    return True


def _arrive_unlinked(root: Path, partial: Path, target: Path) -> bool:
    """Where there are no hard links (exFAT, SMB, some FUSE): claim the name, then move over the claim."""
    try:
        create_file(root, target, replace=False).close()
    except FileExistsError:
        return False
    partial.replace(target)
    return True
