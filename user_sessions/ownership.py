"""Give a user's directories to the user id of their sessions, or back to the one id all share. Runs as root only.

A user may have planted anything in there, so everything is reached through descriptors of directories, links are
never followed, and a file with a second name somewhere is left alone: it may be somebody else's.
"""

import contextlib
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from proxy.base.errors import Unavailable
from proxy.base.logs import events

DEPTH = 64
"""Folders nested deeper keep their owner: each level holds a descriptor while its inside is changed."""
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

log = events(__name__)


@dataclass
class Tally:
    """What a change of owner did."""

    changed: int = 0
    left: int = 0


def give(home: Path, parts: Sequence[str], uid: int | None) -> None:
    """Make `home` and its `parts` if need be, and make `uid` the owner of all inside; None: ourselves.

    The home itself stays ours, so that a session cannot put another directory in a part's place; its group is the
    user's and, changed last, tells that all inside is. Raises OSError, and Unavailable for what is no directory.
    """
    owner = os.geteuid() if uid is None else uid
    group = os.getegid() if uid is None else uid
    fd = _directory(home, None)
    try:
        found = os.fstat(fd)
        if (found.st_uid, found.st_gid) != (os.geteuid(), group):
            tally = Tally()
            _give_inside(fd, owner, group, 0, tally)
            log.info("owner of a user's files changed", user=home.name, owner=owner, **tally.__dict__)
        for part in parts:
            _give_part(fd, home / part, owner, group)
        os.fchown(fd, os.geteuid(), group)
        os.fchmod(fd, 0o700 if uid is None else 0o710)
    finally:
        os.close(fd)


def _give_part(home: int, path: Path, owner: int, group: int) -> None:
    fd = _directory(path, home)
    try:
        found = os.fstat(fd)
        if (found.st_uid, found.st_gid) != (owner, group):
            _give_inside(fd, owner, group, 1, Tally())
            os.fchown(fd, owner, group)
        if stat.S_IMODE(found.st_mode) != 0o700:
            os.fchmod(fd, 0o700)
    finally:
        os.close(fd)


def _directory(path: Path, parent: int | None) -> int:
    name = path.name if parent is not None else str(path)
    with contextlib.suppress(FileExistsError):
        os.mkdir(name, 0o700, dir_fd=parent)
    try:
        return os.open(name, DIRECTORY, dir_fd=parent)
    except NotADirectoryError as error:  # a link answers the same with these flags
        raise Unavailable(
            f"{path} is not a plain directory. Remove it, or move what it points at in its place."
        ) from error


def _give_inside(folder: int, owner: int, group: int, depth: int, tally: Tally) -> None:
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries]
    for name in names:
        found = os.stat(name, dir_fd=folder, follow_symlinks=False)
        if stat.S_ISDIR(found.st_mode):
            if depth >= DEPTH:
                tally.left += 1
                continue
            inside = os.open(name, DIRECTORY, dir_fd=folder)
            try:
                _give_inside(inside, owner, group, depth + 1, tally)
                os.fchown(inside, owner, group)
            finally:
                os.close(inside)
        elif found.st_nlink > 1 or stat.S_ISCHR(found.st_mode) or stat.S_ISBLK(found.st_mode):
            tally.left += 1
            continue
        else:
            os.chown(name, owner, group, dir_fd=folder, follow_symlinks=False)
        tally.changed += 1
