"""How sessions are confined: the operator's choice and the runtime's needs, the same for every session. A value."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Confinement:
    """`ports` are those a session may connect to with `network`; `cgroup` is the group of all sessions, with the
    `controllers` that work there. Read-only paths beyond the runtime's own are in `readable`."""

    sandbox: bool = True
    memory_mb: int = 4096
    file_mb: int = 8192
    processes: int = 512
    cpu_percent: int = 0
    readable: tuple[Path, ...] = ()
    network: bool = False
    ports: tuple[int, ...] = ()
    programs: bool = False
    cgroup: str = ""
    controllers: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The form handed to the zygote."""
        return asdict(self) | {"readable": [str(path) for path in self.readable]}

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> "Confinement":
        """Read that form, which only our own processes write."""
        changed = {"readable": tuple(Path(path) for path in data["readable"])}
        changed |= {name: tuple(data[name]) for name in ("ports", "controllers")}
        return Confinement(**(dict(data) | changed))
