"""Control groups (version 2) for sessions: memory, processors and number of processes together, and an end for all.

Used where the part of the tree we run in is ours to arrange: delegated by systemd (`Delegate=yes`), a container's own
tree, or the bare root. One group per session below one group of ours; a controller that is not there is left out.
`Group` is what travels to sessions: a path and the controllers that work in it. Standard library only.
"""

import contextlib
import errno
import fcntl
import hashlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

WANTED = ("memory", "pids", "cpu")
OURS, MAIN = "comfy-cluster-", "comfy-cluster-main"
PERIOD_US = 100_000
END_S = 2.0
PAUSE_S = 0.01
MIB = 1024 * 1024


@dataclass(frozen=True)
class Limits:
    """What one session may use. `cpu_percent` is of one processor, 0 for any."""

    memory_mb: int
    processes: int
    cpu_percent: int


def find(mounts: Path = Path("/proc/self/mountinfo"), own: Path = Path("/proc/self/cgroup")) -> tuple[Path | None, str]:
    """The group that is ours to arrange, and why there is none."""
    mount = _mount(mounts)
    if mount is None:
        return None, "this machine has no control groups of version 2"
    top, root = mount
    path = next((line[3:] for line in own.read_text().splitlines() if line.startswith("0::")), "/")
    here = top / os.path.relpath(path, root) if Path(path).is_relative_to(root) else top
    lived_in = here.parent if here.name == MAIN else here
    for group in (here, *here.parents):
        if not group.is_relative_to(top):
            break
        if _delegated(group) or group == lived_in == top:  # a tree whose root we live in has no other keeper
            if os.access(group, os.W_OK) and os.access(group / "cgroup.procs", os.W_OK):
                return group, ""
            return None, f"{group} is not writable"
    return None, f"{here} is not delegated to this service: set Delegate=yes in its unit"


@dataclass(frozen=True)
class Held:
    """The group of all sessions of one session host, which alone holds its lock while it lives."""

    path: Path
    controllers: tuple[str, ...]
    lock: int

    def remove(self) -> None:
        """The host ends, and all sessions have."""
        _clear(self.path)
        os.close(self.lock)


def prepare(base: Path, data_dir: Path) -> Held:
    """Make our group in `base`, empty, and see which controllers work there. Raises OSError.

    A group with processes of its own cannot hand controllers down, so those move into a group beside ours. Groups of
    hosts that were killed go, and what they left running with them.
    """
    ours = base / f"{OURS}{hashlib.sha256(os.fsencode(data_dir.absolute())).hexdigest()[:12]}"
    for left in base.glob(f"{OURS}*"):
        if left.name != MAIN and (lock := _locked(left)) is not None:
            _clear(left)
            os.close(lock)
    lock = _taken(ours)
    _enable(base)
    if (base / "cgroup.events").exists() and not _enabled(base):  # the bare root may have both
        main = base / MAIN
        main.mkdir(exist_ok=True)
        for pid in (base / "cgroup.procs").read_text().split():
            with contextlib.suppress(OSError):  # gone meanwhile, or one of the kernel's
                (main / "cgroup.procs").write_text(pid)
        _enable(base)
    _enable(ours)
    return Held(ours, _enabled(ours), lock)


def offered(base: Path) -> tuple[str, ...]:
    """Which controllers could work in it."""
    try:
        found = (base / "cgroup.controllers").read_text().split()
    except OSError:
        return ()
    return tuple(name for name in WANTED if name in found)


def enter(ours: Path, name: str, limits: Limits) -> None:
    """Move this process into a new group `name`. Raises OSError."""
    group = ours / name
    group.mkdir(exist_ok=True)
    quota = f"{limits.cpu_percent * PERIOD_US // 100}" if limits.cpu_percent else "max"
    for file, value in (
        ("memory.max", str(limits.memory_mb * MIB)),
        ("memory.swap.max", "0"),
        ("memory.oom.group", "1"),  # a session without some of its processes would only look alive
        ("pids.max", str(limits.processes)),
        ("cpu.max", f"{quota} {PERIOD_US}"),
    ):
        if (group / file).exists():
            (group / file).write_text(value)
    (group / "cgroup.procs").write_text("0")


def end(ours: Path, name: str) -> bool:
    """Kill what is left in the group and remove it; whether it is gone. Blocking for a moment."""
    group = ours / name
    with contextlib.suppress(OSError):
        (group / "cgroup.kill").write_text("1")
    deadline = time.monotonic() + END_S
    while True:
        try:
            group.rmdir()
        except FileNotFoundError:
            return True
        except OSError:  # the killed are still leaving
            if time.monotonic() > deadline:
                return False
            time.sleep(PAUSE_S)
        else:
            return True


def _taken(ours: Path) -> int:
    """Make the group and hold its lock. Another host that sweeps may hold it for a moment, or remove it unlocked."""
    deadline = time.monotonic() + END_S
    while True:
        ours.mkdir(exist_ok=True)
        lock = _locked(ours)
        if lock is not None:
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(lock), ours.stat()):
                    return lock
            os.close(lock)
        if time.monotonic() > deadline:
            raise OSError(errno.EBUSY, f"{ours} is in use by another session host")
        time.sleep(PAUSE_S)


def _clear(ours: Path) -> None:
    for left in _groups(ours):
        end(ours, left.name)
    with contextlib.suppress(OSError):
        ours.rmdir()


def _locked(group: Path) -> int | None:
    """A descriptor that holds the group's lock, None when somebody else does or it is gone."""
    try:
        fd = os.open(group, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(fd)
        return None
    return fd


def _mount(mounts: Path) -> tuple[Path, str] | None:
    """Where the tree of version 2 is mounted, and which part of it."""
    for line in mounts.read_text().splitlines():
        fields, _, kind = line.partition(" - ")
        if kind.startswith("cgroup2 "):
            _, _, _, root, point, *_ = fields.split(" ")
            return Path(point), root
    return None


def _delegated(group: Path) -> bool:
    for name in ("user.delegate", "trusted.delegate"):
        with contextlib.suppress(OSError):
            if os.getxattr(group, name) == b"1":
                return True
    return False


def _enable(group: Path) -> None:
    for controller in WANTED:
        with contextlib.suppress(OSError):
            (group / "cgroup.subtree_control").write_text(f"+{controller}")


def _enabled(group: Path) -> tuple[str, ...]:
    try:
        found = (group / "cgroup.subtree_control").read_text().split()
    except OSError:
        return ()
    return tuple(name for name in WANTED if name in found)


def _groups(ours: Path) -> Iterator[Path]:
    with contextlib.suppress(FileNotFoundError):
        yield from [path for path in ours.iterdir() if path.is_dir()]
