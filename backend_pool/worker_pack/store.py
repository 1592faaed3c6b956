"""Input files that came by HTTP, by the hash of their content: what a user sends twice travels once. Blocking.

Jobs get copies, never these files: a node may write into its input. Bounded: the longest unused ones go.
"""

import contextlib
import hashlib
import os
import re
import shutil
import time
from pathlib import Path
from typing import IO

HASH = re.compile(r"[0-9a-f]{64}")
SPARED_S = 600.0
"""What was used within this time is not dropped: a job may be about to ask for it."""

ABANDONED_S = 3600.0
"""A partial file that nobody has written to for so long is of a process that was killed."""


class Store:
    """A directory of files named by their SHA-256."""

    def __init__(self, root: Path, limit_bytes: int) -> None:
        self._root = root
        self._limit = limit_bytes
        root.mkdir(parents=True, exist_ok=True)
        for partial in root.glob("*.part*"):
            with contextlib.suppress(OSError):
                if partial.stat().st_mtime < time.time() - ABANDONED_S:  # else another process may be at it
                    partial.unlink()

    def missing(self, hashes: list[str]) -> list[str]:
        """Those it does not have; the others are marked as used."""
        absent = []
        for name in dict.fromkeys(hashes):
            try:
                os.utime(self._path(name))
            except OSError:
                absent.append(name)
        return absent

    def place(self, name: str, target: Path, mtime_ns: int) -> None:
        """Copy one to where a job looks for it. Raises OSError."""
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(self._path(name), target)
        os.utime(target, ns=(mtime_ns, mtime_ns))

    def begin(self, name: str) -> "Incoming":
        """Receive one; give it chunks, then `finish`."""
        return Incoming(self._path(name), name)

    def shrink(self) -> None:
        """Drop the longest unused until the rest fits."""
        entries = []
        for path in self._root.iterdir():
            with contextlib.suppress(OSError):
                stat = path.stat()
                entries.append((stat.st_mtime, stat.st_size, path))
        total = sum(size for _, size, _ in entries)
        for used, size, path in sorted(entries):
            if total <= self._limit or used > time.time() - SPARED_S:
                return
            path.unlink(missing_ok=True)
            total -= size

    def _path(self, name: str) -> Path:
        if HASH.fullmatch(name) is None:
            raise ValueError("not a SHA-256")
        return self._root / name


class Incoming:
    """A file on its way in: it gets its name once it is whole and is what it claims to be."""

    def __init__(self, path: Path, name: str) -> None:
        self._path = path
        self._name = name
        self._partial = path.with_name(f"{path.name}.part{os.urandom(6).hex()}")
        self._out: IO[bytes] = self._partial.open("wb")
        self._hash = hashlib.sha256()

    def write(self, chunk: bytes) -> None:
        """Take a chunk. Raises OSError."""
        self._hash.update(chunk)
        self._out.write(chunk)

    def finish(self) -> bool:
        """Whether the content is what its name says; then it is in the store."""
        self._out.close()
        if self._hash.hexdigest() != self._name:
            return False
        self._partial.replace(self._path)
        return True

    def close(self) -> None:
        """Remove what is not finished."""
        self._out.close()
        self._partial.unlink(missing_ok=True)
