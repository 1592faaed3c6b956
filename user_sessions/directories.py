"""One user's four directories and the shared public ones: where they are, how they are made, what is refused.

Owns creation and permissions below the data directory. It never follows a symlink in place of a directory of ours: a
link planted there would move a user's files, or another user's, out of the sandbox's rules.
"""

import contextlib
import errno
import os
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from proxy.base.errors import ClusterError, DiskFull, Unavailable
from proxy.base.file_owner import as_owner_of
from user_sessions.ownership import give
from user_sessions.uids import uid_of

PUBLIC_PARTS = ("models", "custom_nodes", "workflows", "input")
PRIVATE = 0o700
PASSABLE = 0o711
"""For directories above those that belong to other user ids: to be passed through, not to be listed."""
TEMP_KEPT_S = 7 * 86_400.0
"""How long previews stay. ComfyUI empties `temp` at every start; here the job history outlives a session and still
points at those pictures, so they go by age instead."""


@dataclass(frozen=True)
class Directories:
    """A user's own directories, as ComfyUI names them."""

    input: Path
    output: Path
    temp: Path
    user: Path

    def all(self) -> tuple[Path, ...]:
        """The four of them."""
        return (self.input, self.output, self.temp, self.user)


def user_directories(data_dir: Path, slug: str) -> Directories:
    """Where the directories of `slug` are, absolute; makes nothing."""
    home = Path(os.path.abspath(data_dir)) / "users" / slug  # noqa: PTH100 - resolve() would follow links
    return Directories(home / "input", home / "output", home / "temp", home / "user")


def public_directory(data_dir: Path) -> Path:
    """Where the shared directories are, absolute."""
    return Path(os.path.abspath(data_dir)) / "public"  # noqa: PTH100 - resolve() would follow links


def session_log(data_dir: Path, slug: str) -> Path:
    """The log file of a user's sessions, absolute."""
    return Path(os.path.abspath(data_dir)) / "logs" / "sessions" / f"{slug}.log"  # noqa: PTH100 - see above


def host_log(data_dir: Path) -> Path:
    """The log file of the session host, absolute."""
    return Path(os.path.abspath(data_dir)) / "logs" / "session-host.log"  # noqa: PTH100 - see above


def prepare_user(data_dir: Path, slug: str) -> Directories:
    """Make the directories of `slug`, 0700, and the folder of its log. Blocking. Raises DiskFull or Unavailable.

    They belong to the user id of the user's sessions, where there is one; an earlier owner's are given over.
    """
    directories = user_directories(data_dir, slug)
    home = directories.input.parent
    with failures(home):
        uid = uid_of(data_dir, slug)
        make_private(home.parent, PASSABLE if uid is not None else PRIVATE)
        if os.geteuid() == 0:
            give(home, [path.name for path in directories.all()], uid)
        else:
            for path in (home, *directories.all()):
                make_private(path)
    log = session_log(data_dir, slug)
    for path in (log.parent.parent, log.parent):
        make_private(path)
    return directories


def prepare_public(data_dir: Path) -> Path:
    """Make `public/` and its parts; their mode is the administrator's. Blocking. Raises DiskFull or Unavailable."""
    public = public_directory(data_dir)
    with failures(public):
        for part in PUBLIC_PARTS:
            (public / part).mkdir(parents=True, exist_ok=True)
    return public


def make_private(path: Path, mode: int = PRIVATE) -> None:
    """Make `path` a directory of that mode, or bring an existing one to it. Raises DiskFull or Unavailable."""
    with failures(path):
        with contextlib.suppress(FileExistsError):
            path.mkdir(mode=mode, parents=False)
        found = path.lstat()
        if not stat.S_ISDIR(found.st_mode):
            raise Unavailable(f"{path} is not a plain directory. Remove it, or move what it points at in its place.")
        if found.st_uid != os.geteuid():
            raise Unavailable(f"{path} belongs to user {found.st_uid}, not to the one this runs as. Change its owner.")
        if stat.S_IMODE(found.st_mode) != mode:
            path.chmod(mode)


def prune_temp(directories: Directories, older_than_s: float = TEMP_KEPT_S) -> int:
    """Remove files of `temp` last changed longer ago than that; returns how many. Blocking; skips what resists."""
    with contextlib.suppress(FileNotFoundError), as_owner_of(directories.temp):
        return _prune(directories.temp, time.time() - older_than_s)
    return 0


def _prune(temp: Path, limit: float) -> int:
    removed = 0
    for folder, _, names in os.walk(temp, topdown=False):
        for name in names:
            path = Path(folder) / name
            with contextlib.suppress(OSError):
                if path.lstat().st_mtime < limit:
                    path.unlink()
                    removed += 1
        if Path(folder) != temp:
            with contextlib.suppress(OSError):  # not empty, which is the usual case
                Path(folder).rmdir()
    return removed


@contextlib.contextmanager
def failures(path: Path) -> Iterator[None]:
    """Map what the file system says to errors that say what to do."""
    try:
        yield
    except ClusterError:
        raise
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise DiskFull(f"The disk that holds {path} is full. Free some space and try again.") from error
        reason = error.strerror or str(error)
        raise Unavailable(f"{path} cannot be used: {reason}. Check that it exists and is writable.") from error
