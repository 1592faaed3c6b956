"""What an operator changes about a backend, as a value that is applied to its row. Pure."""

from dataclasses import dataclass

from backend_pool.backends.labels import changed, cleaned
from backend_pool.model import Backend, BackendMode
from proxy.base.errors import BadInput, Conflict

MAX_NOTE = 200


@dataclass(frozen=True)
class Change:
    """None leaves a thing as it is."""

    mode: BackendMode | None = None
    drain_by_ms: int | None = None
    """With the mode draining: when its job is taken away. A new mode without one has no deadline."""
    labels: tuple[str, ...] | None = None
    """All of them, before `add` and `remove`."""
    add: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()
    note: str | None = None
    trust: bool = False
    """Out of quarantine, without a trial job."""

    def apply(self, row: Backend) -> None:
        """Change the row. Raises BadInput or Conflict, with the row as it was."""
        if self.drain_by_ms is not None and self.mode is not BackendMode.DRAINING:
            raise BadInput("Only draining has a deadline.")
        if self.trust and row.quarantine is None:
            raise Conflict(f"Backend {row.name} is not in quarantine.")
        note = None if self.note is None else noted(self.note)
        if self.labels is not None or self.add or self.remove:
            row.labels = changed(row.labels if self.labels is None else cleaned(self.labels), self.add, self.remove)
        if self.mode is not None:
            row.mode, row.drain_by_ms = self.mode, self.drain_by_ms
        if note is not None:
            row.note = note
        if self.trust:
            row.quarantine = row.quarantine_ms = None


def noted(text: str) -> str:
    """A note in one line. Raises BadInput."""
    line = " ".join(text.split())
    if len(line) > MAX_NOTE or not line.isprintable():
        raise BadInput(f"A note has at most {MAX_NOTE} printable characters.")
    return line
