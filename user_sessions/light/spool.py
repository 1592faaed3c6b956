"""A file being received: hidden and hashed while it grows, then placed whole or not at all.

The hidden name starts with `.` so that no listing shows it; leaving the context removes whatever was not placed.
Disk work runs in a thread, in pieces of `FLUSH_BYTES`.
"""

import asyncio
import errno
import hashlib
import os
import secrets
import shutil
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from proxy.base.errors import TooLarge

PREFIX = ".upload-"
FLUSH_BYTES = 1024 * 1024
NO_LINK = {errno.EXDEV, errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK, errno.EACCES}
"""A file system without hard links, another one, or a sandbox that forbids links between directories."""


class Spool:
    """`async with Spool(directory, limit) as spool`: write, `finish`, then `place_new` or `place_over`."""

    def __init__(self, directory: Path, limit_bytes: int) -> None:
        self.size = 0
        self.path = directory / f"{PREFIX}{secrets.token_hex(8)}"
        self._limit = limit_bytes
        self._pending = bytearray()
        self._hash = hashlib.sha256()
        self._file: BinaryIO | None = None

    async def __aenter__(self) -> Self:
        self._file = await asyncio.to_thread(self._open)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self._discard)

    async def write(self, data: bytes) -> None:
        """Take the next bytes. Raises TooLarge beyond the limit, OSError when the disk refuses."""
        self.size += len(data)
        if self.size > self._limit:
            raise too_large(self._limit)
        self._pending += data
        if len(self._pending) >= FLUSH_BYTES:
            await asyncio.to_thread(self._flush)

    async def finish(self) -> None:
        """Everything is here: flush and close, so that a full disk is known before a name is taken."""
        await asyncio.to_thread(self._finish)

    def place_new(self, target: Path) -> bool:
        """Give the file its name unless something has it already; atomic. Blocking."""
        try:
            os.link(self.path, target)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in NO_LINK:
                raise
            return self._copy_new(target)
        return True

    def place_over(self, target: Path) -> None:
        """Give the file its name, replacing what had it; atomic. Blocking."""
        try:
            self.path.replace(target)
        except OSError as error:
            if error.errno not in NO_LINK:
                raise
            beside = target.parent / self.path.name
            try:
                shutil.copyfile(self.path, beside)
                beside.replace(target)
            finally:
                beside.unlink(missing_ok=True)

    def same_as(self, other: Path) -> bool:
        """Whether `other` has the same content. Blocking."""
        if not other.is_file() or other.stat().st_size != self.size:
            return False
        with other.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest() == self._hash.digest()

    def _open(self) -> BinaryIO:
        return self.path.open("xb", buffering=0)

    def _flush(self) -> None:
        assert self._file is not None
        view = memoryview(bytes(self._pending))
        self._pending.clear()
        self._hash.update(view)
        while view:  # a raw file may take only a part
            view = view[self._file.write(view) :]

    def _finish(self) -> None:
        assert self._file is not None
        self._flush()
        self._file.close()

    def _discard(self) -> None:
        if self._file is not None:
            self._file.close()
        self.path.unlink(missing_ok=True)

    def _copy_new(self, target: Path) -> bool:
        try:
            with target.open("xb") as copy:
                try:
                    with self.path.open("rb") as source:
                        shutil.copyfileobj(source, copy)
                    copy.flush()
                except OSError:
                    target.unlink(missing_ok=True)
                    raise
        except FileExistsError:
            return False
        return True


def too_large(limit_bytes: int) -> TooLarge:
    """What a body beyond the limit is told."""
    limit_mb = limit_bytes / 1024 / 1024
    return TooLarge(f"The upload is larger than the {limit_mb:g} MB allowed here. The operator sets max_upload_mb.")


def remove_leftovers(directory: Path) -> None:
    """What an uploading session left behind when it was killed. Called before the session serves."""
    for path in directory.glob(f"{PREFIX}*"):
        path.unlink(missing_ok=True)
