"""How instances of one kind are started and found; `instances.py` does the rest the same way for every kind."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from proxy.base.processes import Daemon


@dataclass(frozen=True)
class Launch:
    """One process to be."""

    command: list[str]
    env: Mapping[str, str] | None = None
    """None: ours."""


class Recipe(Protocol):
    """One kind of instance. Embedded engines and ComfyUIs are the two there are."""

    kind: str
    """What their names begin with, and those of their records."""

    def prepare(self, name: str) -> Launch:
        """Make what it needs and say how it starts. Blocking. Raises ClusterError, OSError."""
        ...

    def marker(self, name: str) -> tuple[str, ...]:
        """Arguments of its command that no other process has all of: one whose record was lost is found by them."""
        ...

    def address(self, name: str, daemon: Daemon) -> str | None:
        """Its URL once it takes connections. Blocking."""
        ...

    def traceable(self, name: str) -> bool:
        """Whether what tells of one that runs where it is to be reached is there: its directory may have been removed
        and made anew under it. Blocking."""
        ...

    def planned(self, name: str) -> str | None:
        """Its URL to be, where that is known before it takes connections. Blocking."""
        ...

    def stale(self, name: str) -> bool:
        """Whether it was started in another way than it would be now. Blocking."""
        ...

    def worker(self, name: str) -> str | None:
        """The id by which its worker pack registers; None for a stock one. Blocking."""
        ...

    def forget(self, name: str) -> None:
        """It was stopped for good: remove secrets and notes of where it is. Blocking."""
        ...
