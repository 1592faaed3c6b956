"""What one session may use of the machine: limits that hold for a process, and a control group where there is one."""

import contextlib
import os
import resource
from pathlib import Path

from user_sessions import cgroup
from user_sessions.confinement import Confinement

OPEN_FILES = 1024
MIB = 1024 * 1024
NICE = 5


def join(name: str, confinement: Confinement) -> None:
    """Enter a control group of this session's own, when the host arranged for them. Raises OSError."""
    if confinement.cgroup:
        limits = cgroup.Limits(confinement.memory_mb, confinement.processes, confinement.cpu_percent)
        cgroup.enter(Path(confinement.cgroup), name, limits)


def limit(confinement: Confinement, *, own_id: bool) -> None:
    """No core files; descriptors, memory, file size, processes; and the proxy goes first when processors are short.

    Memory is address space beyond what the session began with, unless a control group counts what is really used:
    libraries reserve much that they never touch. The kernel counts processes per user id, so a shared one has no limit.
    """
    limits = {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NOFILE: OPEN_FILES,
        resource.RLIMIT_FSIZE: confinement.file_mb * MIB,
    }
    if "memory" not in confinement.controllers:
        limits[resource.RLIMIT_AS] = _address_space() + confinement.memory_mb * MIB
    if own_id:
        limits[resource.RLIMIT_NPROC] = confinement.processes
    for name, value in limits.items():
        hard = resource.getrlimit(name)[1]
        allowed = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(name, (allowed, allowed))
    os.nice(NICE)
    with contextlib.suppress(OSError):  # a session should be the first to go when memory runs out, not the proxy
        Path("/proc/self/oom_score_adj").write_text("500")


def _address_space() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
