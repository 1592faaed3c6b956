"""Run a command where other user ids can reach this Python: `python -m tests.user_sessions.reachable COMMAND...`.

Root's Python often lies in root's closed home. In a mount namespace of its own such a directory is covered by one that
may be passed, with only the installation in it; nothing outside sees that. Needs root.
"""

import ctypes
import os
import stat
import sys
import tempfile
from pathlib import Path

from user_sessions.host_process import HostProcess
from user_sessions.sandbox import python_paths

NEW_NS, BIND, RECURSIVE, PRIVATE = 0x00020000, 0x1000, 0x4000, 0x40000
HERE = Path(__file__).resolve().parents[2]

libc = ctypes.CDLL(None, use_errno=True)


class ReachableHost(HostProcess):
    """A session host that is started in such a place."""

    def command(self) -> list[str]:
        """See HostProcess."""
        return [sys.executable, "-m", "tests.user_sessions.reachable", *super().command()]


def main(command: list[str]) -> None:
    """Cover what is closed, become the command."""
    called(libc.unshare(NEW_NS))
    called(libc.mount(b"none", b"/", None, RECURSIVE | PRIVATE, None))
    needed = {path for path in (*python_paths(), Path(sys.base_prefix), HERE) if path.exists()}
    closed = {folder for path in needed if (folder := closed_above(path)) is not None}
    for folder in sorted(closed):
        cover(folder, sorted(path for path in needed if path.is_relative_to(folder)))
    os.chdir(HERE)
    os.execv(command[0], command)


def closed_above(path: Path) -> Path | None:
    """The topmost directory over `path` that others may not pass."""
    return next((folder for folder in reversed(path.parents) if not folder.stat().st_mode & stat.S_IXOTH), None)


def cover(folder: Path, kept: list[Path]) -> None:
    """Hide everything in `folder` but `kept`."""
    aside = Path(tempfile.mkdtemp(prefix="aside-"))
    called(libc.mount(os.fsencode(folder), os.fsencode(aside), None, BIND | RECURSIVE, None))
    called(libc.mount(b"tmpfs", os.fsencode(folder), b"tmpfs", 0, b"mode=711"))
    for path in kept:
        if not path.exists():  # else it lies in one that was shown already
            path.mkdir(parents=True)
            shown = aside / path.relative_to(folder)
            called(libc.mount(os.fsencode(shown), os.fsencode(path), None, BIND | RECURSIVE, None))
    called(libc.umount2(os.fsencode(aside), 2))  # for this namespace only; what was shown stays
    aside.rmdir()


def called(result: int) -> None:
    """Raise what the kernel answered."""
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


if __name__ == "__main__":
    main(sys.argv[1:])
