"""Decide, where sessions are started, whether each gets a user id of its own, and open the way to its directories.

Done once per start of a session host (or of a proxy without one), while no session of this data directory runs.
"""

import os
from collections.abc import Iterable
from pathlib import Path

from proxy.base.logs import events
from user_sessions import uids
from user_sessions.directories import PASSABLE, PUBLIC_PARTS, failures, public_directory
from user_sessions.privileges import obstacles
from user_sessions.uids import Range

PASSED = ("", "users", "cache")

log = events(__name__)


def decide(data_dir: Path, wanted: Range | None, readable: Iterable[Path]) -> list[str]:
    """Put the range in force, or none and say why not. Raises Unavailable or DiskFull when that cannot be kept."""
    data = data_dir.absolute()
    reasons = why_not(data, wanted, readable)
    with failures(data):
        if reasons:
            if uids.in_force(data) is not None:
                for name in PASSED:
                    _close_way(data / name)
            uids.switch(data, None)
        else:
            uids.switch(data, wanted)
            for name in PASSED:
                _open_way(data / name)
    if wanted is not None and reasons and os.geteuid() == 0:
        log.warning("sessions share one user id", reasons=reasons)
    return reasons


def why_not(data_dir: Path, wanted: Range | None, readable: Iterable[Path]) -> list[str]:
    """The reasons, none when sessions can have ids of their own. Changes nothing."""
    if wanted is None:
        return ["switched off by the setting `session_uids`"]
    public = public_directory(data_dir)
    opened = {(data_dir / name).resolve() for name in PASSED}
    return obstacles(wanted, data_dir, opened, [*readable, *(public / part for part in PUBLIC_PARTS)])


def _close_way(path: Path) -> None:
    if path.is_dir() and path.stat().st_uid == os.geteuid():
        path.chmod(path.stat().st_mode & 0o700)


def _open_way(path: Path) -> None:
    """Others may pass, not list. What lies in there is closed by its own mode."""
    path.mkdir(mode=PASSABLE, exist_ok=True)
    if path.stat().st_uid == os.geteuid():
        path.chmod(path.stat().st_mode & 0o777 | 0o111)
