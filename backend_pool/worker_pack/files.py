"""Files of a job whose directories are scratch ones: stubs of what the user has, and what the job wrote. Blocking.

A stub has the size and time of the user's file and takes no room: save nodes go on counting, and what a node appends to
one can be told from what it wrote anew.
"""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from stat import S_ISREG
from typing import IO, Any

from .host import Dirs
from .wire import KINDS

WRITTEN = ("output", "temp")
BLOCK = 1024 * 1024

Stamp = tuple[int, int]
"""Size in bytes, modification time in nanoseconds."""


class BadPath(ValueError):
    """A path that leads out of the job's directories."""


def locate(dirs: Dirs, path: str) -> Path:
    """The file behind `output/sub/name`. Raises BadPath."""
    parts = PurePosixPath(path).parts
    if len(parts) < 2 or parts[0] not in KINDS or ".." in parts or "\0" in path or path.startswith("/"):
        raise BadPath(path)
    return Path(dirs.of(parts[0]), *parts[1:])


def open_plain(path: Path) -> IO[bytes] | None:
    """A plain file, no link and nothing that would wait for a writer; None when there is none."""
    try:
        content = os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb")
    except OSError:
        return None
    if S_ISREG(os.fstat(content.fileno()).st_mode):
        return content
    content.close()
    return None


def make_stubs(dirs: Dirs, stubs: list[dict[str, Any]]) -> dict[str, Stamp]:
    """Put files in place of the user's own, for their names. Raises BadPath, OSError."""
    made: dict[str, Stamp] = {}
    for stub in stubs:
        path, stamp = locate(dirs, stub["path"]), (int(stub["size"]), int(stub["mtime_ns"]))
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as out:
            out.truncate(stamp[0])
        os.utime(path, ns=(stamp[1], stamp[1]))
        made[stub["path"]] = (stamp[0], path.stat().st_mtime_ns)  # as this file system keeps times
    return made


def written(dirs: Dirs, stubs: dict[str, Stamp]) -> list[dict[str, Any]]:
    """Every plain file of output and temp but untouched stubs, oldest first.

    `known`: the user had one of that name; `from`: where the new part of such a file begins.
    """
    found = []
    for kind in WRITTEN:
        for path in _plain_files(Path(dirs.of(kind))):
            name = f"{kind}/{path.relative_to(dirs.of(kind)).as_posix()}"
            try:
                stat = path.stat()
                known = stubs.get(name)
                if known == (stat.st_size, stat.st_mtime_ns):
                    continue
                begin = known[0] if known is not None and _appended(path, known[0], stat.st_size) else 0
            except OSError:  # a node has just removed it
                continue
            found.append(
                {
                    "path": name,
                    "size": stat.st_size,
                    "mtime_ns": stat.st_mtime_ns,
                    "from": begin,
                    "known": known is not None,
                }
            )
    return sorted(found, key=lambda entry: entry["mtime_ns"])


def strays(made: Iterable[str], startup: Dirs, own: Dirs) -> list[dict[str, Any]]:
    """Those of the files that a job made which lie in the server's own output or temp, as `written` lists files.

    `whole` is where it is, `stamp` what it is by now. `own` are the job's directories, which may lie in the server's.
    """
    found = []
    for whole in made:
        kinds = [kind for kind in WRITTEN if _below(whole, startup.of(kind))]
        if not kinds or any(_below(whole, own.of(kind)) for kind in KINDS):
            continue
        kind = max(kinds, key=lambda kind: len(startup.of(kind)))
        try:
            stat = os.lstat(whole)
        except OSError:
            continue
        if S_ISREG(stat.st_mode):
            path = f"{kind}/{Path(whole).relative_to(startup.of(kind)).as_posix()}"
            stamp = (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns)
            entry = {"path": path, "size": stat.st_size, "mtime_ns": stat.st_mtime_ns, "from": 0, "known": False}
            found.append(entry | {"stray": True, "whole": whole, "stamp": stamp})
    return found


def _below(path: str, folder: str) -> bool:
    return path.startswith(folder.rstrip(os.sep) + os.sep)


def _plain_files(root: Path) -> Iterator[Path]:
    """Links are left alone: they may lead anywhere."""
    for folder, _, names in os.walk(root):
        for name in names:
            path = Path(folder, name)
            if path.is_file() and not path.is_symlink():
                yield path


def _appended(path: Path, old: int, size: int) -> bool:
    """Whether a stub of `old` bytes was written on at its end alone: its own bytes are still the zeros of a hole."""
    if not 0 < old < size:
        return False
    with path.open("rb") as content:
        left = old
        while left:
            block = content.read(min(BLOCK, left))
            if not block or block.count(0) != len(block):
                return False
            left -= len(block)
    return True
