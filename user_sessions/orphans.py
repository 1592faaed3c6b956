"""What a session leaves behind: processes that left its process group and outlived it.

Whoever forks sessions makes itself the kernel's adopter of orphans (PR_SET_CHILD_SUBREAPER); what it finds among its
children and did not start itself is a session's orphan, and ends.
"""

import contextlib
import os
import signal
import time
from collections.abc import Container
from pathlib import Path

END_S = 2.0


def end_orphans(mine: Container[int], timeout_s: float = END_S) -> int:
    """Kill and reap every child of this process that is none of `mine`, and what these leave in turn; returns how many.

    Blocking for a moment; what is still leaving after `timeout_s` is met again at the next call.
    """
    ended: set[int] = set()
    deadline = time.monotonic() + timeout_s
    while found := [pid for pid in children() if pid not in mine]:
        for pid in found:
            ended.add(pid)
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        while time.monotonic() < deadline:
            with contextlib.suppress(ChildProcessError):
                found = [pid for pid in found if os.waitpid(pid, os.WNOHANG)[0] == 0]
                if found:
                    time.sleep(0.002)
                    continue
            break
        if time.monotonic() >= deadline:
            break
    return len(ended)


def children() -> list[int]:
    """Processes whose parent is this one, whichever of its threads started or adopted them."""
    found: list[int] = []
    for thread in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):  # the thread ended, or a kernel without that file: the process group must do
            found += map(int, (thread / "children").read_text().split())
    return found
