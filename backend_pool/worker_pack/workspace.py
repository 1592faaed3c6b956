"""Where a job's directories come from: the shared storage, or scratch filled with what the dispatcher sent. Blocking.

A user's scratch has the same path as long as the process runs: what ComfyUI keeps between a user's jobs may hold paths
in it. Several processes may share one installation: each has scratch of its own and holds a lock beside it.
"""

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import uuid
from dataclasses import dataclass, field, replace
from pathlib import Path
from stat import S_ISDIR
from typing import Any

from .files import WRITTEN, BadPath, Stamp, locate, make_stubs
from .host import Dirs
from .store import Store
from .wire import CHALLENGE, KINDS

TAG = re.compile(r"[0-9a-f]{8,64}")
CLOCKS_DIFFER_S = 2.0
"""By so much the clock of a file server may be behind."""


class NotShared(Exception):
    """The shared storage is not there, or not what it was."""


@dataclass(frozen=True)
class Room:
    """A job's directories. `user` is whom results are kept for: paths of shared and scratch ones must not mix."""

    dirs: Dirs
    user: str
    scratch: Path | None = None
    stubs: dict[str, Stamp] = field(default_factory=dict)


class Workspace:
    """Makes and removes rooms."""

    def __init__(self, root: Path, shared_data: str | None, store_bytes: int) -> None:
        self._scratch = _own_scratch(root / "scratch")
        self._shared = None if shared_data is None else Path(shared_data)
        self.store = Store(root / "store", store_bytes)

    def proof(self) -> str | None:
        """What shows the proxy that its `users` directory is mounted here, writable; None when it is not."""
        if self._shared is None or not os.access(self._shared, os.W_OK):
            return None
        try:
            return hashlib.sha256((self._shared / CHALLENGE).read_bytes()).hexdigest()
        except OSError:
            return None

    def shared(self, tag: str, folder: str) -> Room:
        """A user's own directories on shared storage. Raises NotShared."""
        if self._shared is None or Path(folder).name != folder or folder in ("", ".", ".."):
            raise NotShared(f"There is no shared folder {folder!r}.")
        home = self._shared / folder
        dirs = _dirs(home)
        for kind in KINDS:
            if not Path(dirs.of(kind)).is_dir():
                raise NotShared(f"{kind} of {folder} is not there: is the storage still mounted?")
        return Room(dirs, f"{_checked(tag)}-shared")

    def scratch(self, tag: str, inputs: list[dict[str, Any]], stubs: list[dict[str, Any]]) -> Room:
        """Fresh directories with these input files and stubs. Raises BadPath, OSError."""
        home = self._scratch / _checked(tag)
        shutil.rmtree(home, ignore_errors=True)
        dirs = _dirs(home)
        for kind in KINDS:
            Path(dirs.of(kind)).mkdir(parents=True)
        made = make_stubs(dirs, stubs)
        for entry in inputs:
            self.store.place(entry["sha256"], locate(dirs, entry["path"]), int(entry["mtime_ns"]))
            path = locate(dirs, entry["path"])
            made[entry["path"]] = (path.stat().st_size, path.stat().st_mtime_ns)
        return Room(dirs, f"{tag}-sent", home, made)

    def drawer(self) -> Path:
        """A directory for files of an ended job; no prompt can name it, since nobody knows its name."""
        path = self._scratch / f"kept-{uuid.uuid4().hex}"
        path.mkdir(mode=0o700)
        return path

    def moved(self, room: Room, drawer: Path) -> Room:
        """Scratch in a drawer, without its inputs: those are copies that nobody asks for. Shared directories stay where
        they are. Raises OSError."""
        if room.scratch is None:
            return room
        home = room.scratch.rename(drawer / "room")
        dirs = _dirs(home)
        shutil.rmtree(dirs.of("input"), ignore_errors=True)
        return replace(room, dirs=dirs, scratch=home)

    def remove(self, room: Room, drawer: Path | None = None) -> None:
        """Take scratch and drawer away; shared directories are the user's."""
        for path in (room.scratch, drawer):
            if path is not None:
                shutil.rmtree(path, ignore_errors=True)


def _own_scratch(root: Path) -> Path:
    """A directory of this process alone, locked as long as the process lasts. Sweeps those whose
    processes have ended."""
    root.mkdir(parents=True, exist_ok=True)
    with (root / "lock").open("w") as sweeping:
        fcntl.flock(sweeping, fcntl.LOCK_EX)  # else another takes what is not locked yet for left over
        for lock in root.glob("*.lock"):
            with lock.open("w") as held:
                try:
                    fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError:
                    continue
                shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
                lock.unlink(missing_ok=True)
        own = root / uuid.uuid4().hex[:12]
        own.mkdir()
        kept = os.open(own.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o600)  # never closed: it is the lock
        fcntl.flock(kept, fcntl.LOCK_EX)
    return own


def hand_over(room: Room, since_s: float) -> None:
    """Give what a privileged ComfyUI wrote on shared storage to the directory's owner, whose session has to read it."""
    if room.scratch is not None or os.geteuid() != 0:
        return
    for kind in WRITTEN:
        owner = Path(room.dirs.of(kind)).lstat()
        if owner.st_uid != 0:
            _give(room.dirs.of(kind), owner.st_uid, owner.st_gid, since_s)


def _give(root: str, uid: int, gid: int, since_s: float) -> None:
    """By names in open directories, since the user may swap directories for links meanwhile; and nothing that has a
    second name, which may be a file of the system's that the user linked here."""
    for _, folders, names, folder in os.fwalk(root, follow_symlinks=False):
        for name in (*folders, *names):
            with contextlib.suppress(FileNotFoundError):
                found = os.stat(name, dir_fd=folder, follow_symlinks=False)
                single = found.st_nlink == 1 or S_ISDIR(found.st_mode)
                if found.st_uid == 0 and single and found.st_ctime >= since_s - CLOCKS_DIFFER_S:
                    os.chown(name, uid, gid, dir_fd=folder, follow_symlinks=False)


def _dirs(home: Path) -> Dirs:
    whole = os.path.abspath(home)  # noqa: PTH100 - ComfyUI compares such paths as texts
    return Dirs(*(os.path.join(whole, kind) for kind in KINDS))  # noqa: PTH118


def _checked(tag: str) -> str:
    if TAG.fullmatch(tag) is None:
        raise BadPath(tag)
    return tag
