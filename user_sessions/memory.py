"""How much memory sessions take, as fairly as the kernel tells us, without paying for it all the time.

A fair figure costs the kernel a walk through the process's pages, tens of milliseconds for a ComfyUI. Each is kept for
KEPT_S, and one look spends BUDGET_S at most: the oldest figures are renewed first, the others stay as they were.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from pathlib import Path

from proxy.base.clock import monotonic_s

KEPT_S = 20.0
BUDGET_S = 0.1
PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class _Figure:
    taken: int | None
    at_s: float


class Gauge:
    """Remembers figures by session id."""

    def __init__(self) -> None:
        self._known: dict[str, _Figure] = {}

    def look(self, pids: Mapping[str, int]) -> dict[str, int | None]:
        """Bytes by session id, None for one not looked at yet. Blocking for about BUDGET_S."""
        known = {name: self._known[name] for name in pids if name in self._known}
        began_s = monotonic_s()
        for name in sorted(pids, key=lambda name: known[name].at_s if name in known else -inf):
            now_s = monotonic_s()
            if now_s - began_s > BUDGET_S or (name in known and now_s - known[name].at_s < KEPT_S):
                break
            known[name] = _Figure(memory_of(pids[name]), now_s)
        self._known = known
        return {name: known[name].taken if name in known else None for name in pids}


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
