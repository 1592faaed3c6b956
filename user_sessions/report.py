"""What a spawner tells of itself besides its sessions: how a refresh goes, which custom nodes failed to load,
and whether sessions can be started at all.

Values and their JSON form only. Fields that an older session host does not know read as nothing to tell.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, cast, get_args

RefreshState = Literal["none", "warming", "done", "failed"]


@dataclass(frozen=True)
class Refresh:
    """The latest refresh. Times are milliseconds since the epoch; `by` is who asked for it."""

    state: RefreshState = "none"
    began_ms: int | None = None
    ended_ms: int | None = None
    error: str = ""
    by: str = ""

    @staticmethod
    def from_json(data: object) -> "Refresh":
        """Read that form; anything else is no refresh."""
        fields = data if isinstance(data, Mapping) else {}
        if fields.get("state") not in get_args(RefreshState):
            return Refresh()
        return Refresh(
            state=cast(RefreshState, fields["state"]),
            began_ms=_number(fields.get("began_ms")),
            ended_ms=_number(fields.get("ended_ms")),
            error=str(fields.get("error") or ""),
            by=str(fields.get("by") or ""),
        )


@dataclass(frozen=True)
class FailedNode:
    """A pack of custom nodes that could not be loaded; `log` is what it wrote meanwhile."""

    pack: str
    error: str
    log: str = ""


@dataclass(frozen=True)
class Report:
    """A spawner's account of what its sessions start from."""

    refresh: Refresh = Refresh()
    failed_nodes: tuple[FailedNode, ...] = ()
    broken: str = ""
    """Why no session can be started; empty when they can, or might with what is under way."""

    def to_json(self) -> dict[str, Any]:
        """The form that travels from the session host."""
        nodes = [asdict(node) for node in self.failed_nodes]
        return {"refresh": asdict(self.refresh), "failed_nodes": nodes, "broken": self.broken}

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> "Report":
        """Read that form."""
        broken = str(data.get("broken") or "")
        return Report(Refresh.from_json(data.get("refresh")), failed_nodes(data.get("failed_nodes")), broken)


def failed_nodes(data: object) -> tuple[FailedNode, ...]:
    """The packs in `[{"pack", "error", "log"?}]`; entries without a name are left out."""
    entries = data if isinstance(data, list) else []
    return tuple(
        FailedNode(str(entry["pack"]), str(entry.get("error") or ""), str(entry.get("log") or ""))
        for entry in entries
        if isinstance(entry, Mapping) and entry.get("pack")
    )


def _number(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
