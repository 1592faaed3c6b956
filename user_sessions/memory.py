"""How much memory a process takes, as fairly as the kernel tells us."""

import os
from pathlib import Path

PAGE = os.sysconf("SC_PAGE_SIZE")


def memory_of(pid: int) -> int | None:
    """Bytes: its own and its part of what it shares, where we may see that (as root: sessions are not dumpable), else
    all that is resident, shared pages included. None when it is gone."""
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_bytes().splitlines():
            if line.startswith(b"Pss:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    try:
        return int(Path(f"/proc/{pid}/statm").read_bytes().split()[1]) * PAGE
    except (OSError, IndexError):
        return None
