"""A user id of the machine per user, when the server runs as root: which one, since when, and whether at all.

`<data>/session-uids` keeps one line `uid slug` per user, only ever appended to: an id is never given to a second user,
whose session could then open what the first one left. `<data>/session-uids.on` holds the range while it is in force;
whoever starts sessions switches it, everybody else looks. Standard library only.
"""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from proxy.base.errors import Unavailable

TABLE = "session-uids"
SWITCH = "session-uids.on"


@dataclass(frozen=True)
class Range:
    """Ids that nothing else on this machine may use; users' groups have the same numbers."""

    first: int
    count: int

    def __contains__(self, uid: int) -> bool:
        return self.first <= uid < self.first + self.count


def switch(data_dir: Path, wanted: Range | None) -> None:
    """Put a range in force for every session started from now on, or none. Raises OSError."""
    path = data_dir / SWITCH
    if wanted is None:
        path.unlink(missing_ok=True)
        return
    partial = path.with_suffix(".part")
    partial.unlink(missing_ok=True)
    with os.fdopen(_open(partial, os.O_WRONLY | os.O_EXCL), "w") as file:
        file.write(f"{wanted.first} {wanted.count}\n")
    partial.replace(path)


def in_force(data_dir: Path) -> Range | None:
    """The range sessions take their ids from, None while all share one. Ids need root: for others it is off."""
    if os.geteuid() != 0:
        return None
    try:
        first, count = (data_dir / SWITCH).read_text().split()
    except FileNotFoundError:
        return None
    return Range(int(first), int(count))


def uid_of(data_dir: Path, slug: str) -> int | None:
    """The id of that user's sessions and files, chosen now if need be; None while all share one. Blocking.

    Raises Unavailable when the range is used up, OSError when the table cannot be read or written.
    """
    wanted = in_force(data_dir)
    if wanted is None:
        return None
    with _table(data_dir) as fd:
        taken = _read(fd)
        for uid, known in taken.items():
            if known == slug and uid in wanted:
                return uid
        uid = _choose(data_dir, slug, wanted, taken)
        os.write(fd, f"{uid} {slug}\n".encode())
        os.fsync(fd)  # before the first file of that id: a power failure must not hand it out again
        return uid


def _choose(data_dir: Path, slug: str, wanted: Range, taken: dict[int, str]) -> int:
    """Above all that were ever given and, should the table be lost, above all that own a user's directory."""
    owners: dict[str, int] = {}
    with contextlib.suppress(FileNotFoundError), os.scandir(data_dir / "users") as homes:
        owners = {home.name: home.stat(follow_symlinks=False).st_gid for home in homes}
    mine = owners.get(slug)
    if mine is not None and mine in wanted and mine not in taken:
        return mine
    used = [uid for uid in (*taken, *owners.values()) if uid in wanted]
    uid = max(used, default=wanted.first - 1) + 1
    if uid not in wanted:
        raise Unavailable("No user id is left for another user. Raise the setting `session_uid_count`.")
    return uid


@contextlib.contextmanager
def _table(data_dir: Path) -> Iterator[int]:
    fd = _open(data_dir / TABLE, os.O_RDWR | os.O_APPEND)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield fd
    finally:
        os.close(fd)


def _read(fd: int) -> dict[int, str]:
    """Slug by id. A last line that a crash cut short was never used: it goes."""
    data = os.pread(fd, os.fstat(fd).st_size, 0)
    whole = data[: data.rfind(b"\n") + 1]
    if len(whole) < len(data):
        os.ftruncate(fd, len(whole))
    lines = (line.split(" ", 1) for line in whole.decode().splitlines())
    return {int(uid): slug for uid, slug in lines}


def _open(path: Path, flags: int) -> int:
    return os.open(path, flags | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
