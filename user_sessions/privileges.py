"""Whether sessions can have user ids of their own here, and the moment one takes its id.

Root alone is not enough: containers drop capabilities and map few ids, and another id must be able to read the Python
installation and the public directories. Standard library only.
"""

import os
import stat
from collections.abc import Container, Iterable
from pathlib import Path

from user_sessions.uids import Range

CAPABILITIES = {"CHOWN": 0, "DAC_OVERRIDE": 1, "FOWNER": 3, "KILL": 5, "SETGID": 6, "SETUID": 7}


def obstacles(wanted: Range, data_dir: Path, opened: Container[Path], readable: Iterable[Path]) -> list[str]:
    """Why sessions cannot have ids of that range, each with what to do about it; empty when they can. The way through
    the directories in `opened` is ours to open."""
    if os.geteuid() != 0:
        return ["the server does not run as root"]
    missing = [name for name, bit in CAPABILITIES.items() if not _effective() >> bit & 1]
    if missing:
        return [f"capabilities are missing: {', '.join(f'CAP_{name}' for name in missing)}"]
    if not all(_mapped(Path(f"/proc/self/{kind}_map"), wanted) for kind in ("uid", "gid")):
        last = wanted.first + wanted.count - 1
        return [f"ids {wanted.first} to {last} do not exist in this container: set `session_uid_first` lower"]
    above = closed_to_others(data_dir.resolve().parent, opened, read=False)
    closed = [above, *(closed_to_others(path, opened, read=True) for path in readable)]
    return [advice for advice in dict.fromkeys(closed) if advice]


def become(uid: int, gid: int) -> None:
    """Be that user for good, in no group but `gid`. Raises PermissionError."""
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    if os.getresuid() != (uid, uid, uid) or os.getresgid() != (gid, gid, gid) or os.getgroups():
        raise PermissionError(f"this process could not become user {uid}")


def closed_to_others(path: Path, opened: Container[Path], *, read: bool) -> str:
    """What keeps other user ids from passing through `path`, or from reading it, and how to mend it; empty when
    nothing does, or when it does not exist. Goes by the mode bits: access lists are not looked at."""
    try:
        real = path.resolve(strict=True)
        for folder in reversed(real.parents):
            if folder not in opened and not folder.stat().st_mode & stat.S_IXOTH:
                return f"other user ids cannot pass {folder}: chmod o+x {folder}"
        mode = real.stat().st_mode
    except OSError:
        return ""
    wanted = (stat.S_IROTH if read else 0) | (stat.S_IXOTH if stat.S_ISDIR(mode) else 0)
    if mode & wanted == wanted:
        return ""
    return f"other user ids cannot {'read' if read else 'pass'} {real}: chmod o+{'rx' if read else 'x'} {real}"


def _effective() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return int(line.split()[1], 16)
    return 0


def _mapped(table: Path, wanted: Range) -> bool:
    """Whether the whole range lies in one line of a user namespace's table `inside outside count`."""
    lines = (map(int, line.split()) for line in table.read_text().splitlines())
    return any(inside <= wanted.first and wanted.first + wanted.count <= inside + count for inside, _, count in lines)
