"""Every file that this process opens, makes or removes in a user's directories, however the user has prepared them.

A session may put a FIFO, a link or a leased file where we expect a picture, at any moment. So: in the user's name,
every folder reached through descriptors that follow no link, no wait for whoever is at a FIFO's other end, plain files
only, and new files are new. Blocking, as a network disk may be; for the event loop there is `opened`.
"""

import asyncio
import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path
from typing import BinaryIO

from proxy.base.file_owner import as_owner_of

FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
PLAIN = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
MODE = 0o666


def open_file(root: Path, path: Path, *, change: bool = False) -> BinaryIO:
    """A plain file of the user whose directory `root` is, to be read, or with `change` also written. Raises OSError."""
    with as_owner_of(root), _folder(root, path) as folder:
        return _plain(os.open(path.name, PLAIN | (os.O_RDWR if change else os.O_RDONLY), dir_fd=folder), path, change)


def create_file(root: Path, path: Path, *, replace: bool = True) -> BinaryIO:
    """A new empty file to write; with `replace` in the place of whatever has that name.

    Raises OSError: FileExistsError when somebody is quicker, FileNotFoundError when there is no such folder.
    """
    with as_owner_of(root), _folder(root, path) as folder:
        if replace:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path.name, dir_fd=folder)
        flags = PLAIN | os.O_RDWR | os.O_CREAT | os.O_EXCL
        return _plain(os.open(path.name, flags, MODE, dir_fd=folder), path, change=True)


def remove_file(root: Path, path: Path) -> None:
    """Remove what has that name, if there is something, and be it a link. Raises OSError."""
    with contextlib.suppress(FileNotFoundError), as_owner_of(root), _folder(root, path) as folder:
        os.unlink(path.name, dir_fd=folder)


@contextlib.asynccontextmanager
async def opened(root: Path, path: Path) -> AsyncIterator[BinaryIO]:
    """`open_file` for the event loop. Read it in threads, as aiohttp does with an open file."""
    opening = asyncio.get_running_loop().run_in_executor(None, partial(open_file, root, path))
    try:
        content = await asyncio.shield(opening)
    except asyncio.CancelledError:
        opening.add_done_callback(_close_unwanted)
        raise
    with content:
        yield content


def _close_unwanted(opening: "asyncio.Future[BinaryIO]") -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result().close()


@contextlib.contextmanager
def _folder(root: Path, path: Path) -> Iterator[int]:
    """The descriptor of the folder of `path`. Links that stay in `root` are followed by name first: what the walk then
    goes through is no link, or the walk fails."""
    try:
        base, within = root.resolve(strict=True), path.parent.resolve(strict=True)
    except RuntimeError as error:  # how Python 3.11 tells of a loop of links
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path)) from error
    if not within.is_relative_to(base):
        raise PermissionError(errno.EACCES, "it leads out of the user's directory", str(path))
    folder = os.open(base, FOLDER)
    try:
        for name in within.relative_to(base).parts:
            inside = os.open(name, FOLDER, dir_fd=folder)
            os.close(folder)
            folder = inside
        yield folder
    finally:
        os.close(folder)


def _plain(descriptor: int, path: Path, change: bool) -> BinaryIO:
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "it is no plain file", str(path))
        flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
        fcntl.fcntl(descriptor, fcntl.F_SETFL, flags & ~os.O_NONBLOCK)
        return os.fdopen(descriptor, "r+b" if change else "rb")
    except BaseException:
        os.close(descriptor)
        raise
