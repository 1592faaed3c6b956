"""Where a job's directories come from: the shared storage, or scratch filled with what the dispatcher sent. Blocking.

A user's scratch has the same path every time: what ComfyUI keeps between a user's jobs may hold paths in it.
"""

import hashlib
import os
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .files import BadPath, Stamp, locate, make_stubs
from .host import Dirs
from .store import Store
from .wire import CHALLENGE, KINDS

TAG = re.compile(r"[0-9a-f]{8,64}")


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
        self._scratch = root / "scratch"
        self._shared = None if shared_data is None else Path(shared_data)
        shutil.rmtree(self._scratch, ignore_errors=True)  # of a process that was killed
        self._scratch.mkdir(parents=True, exist_ok=True)
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

    def remove(self, room: Room) -> None:
        """Take scratch away; shared directories are the user's."""
        if room.scratch is not None:
            shutil.rmtree(room.scratch, ignore_errors=True)


def hand_over(room: Room, since_s: float) -> None:
    """Give what a privileged ComfyUI wrote on shared storage to the directory's owner, whose session has to read it."""
    if room.scratch is not None or os.geteuid() != 0:
        return
    for kind in ("output", "temp"):
        root = Path(room.dirs.of(kind))
        owner = root.stat()
        if owner.st_uid == 0:
            continue
        for folder, folders, names in os.walk(root):
            for name in (*folders, *names):
                path = Path(folder, name)
                stat = path.lstat()
                if stat.st_uid == 0 and stat.st_ctime >= since_s - 2:
                    os.lchown(path, owner.st_uid, owner.st_gid)


def _dirs(home: Path) -> Dirs:
    whole = os.path.abspath(home)  # noqa: PTH100 - ComfyUI compares such paths as texts
    return Dirs(*(os.path.join(whole, kind) for kind in KINDS))  # noqa: PTH118


def _checked(tag: str) -> str:
    if TAG.fullmatch(tag) is None:
        raise BadPath(tag)
    return tag
