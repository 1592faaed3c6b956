"""What a runtime that imports other people's code says while it warms, and when its process may not be forked.

Values and a Protocol between the zygote and such a runtime. A pack is a folder or file of custom nodes.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol, runtime_checkable

from proxy.base.errors import Unavailable
from user_sessions.report import FailedNode
from user_sessions.runtime import SessionSpec

Importing = Callable[[str], None]
"""Told the pack that is imported next, and an empty name when it is done: if the process ends in between, that pack
ended it."""


class Unforkable(Unavailable):
    """The runtime works, but not in forks of this process: each session must import everything itself."""


@runtime_checkable
class ImportsPacks(Protocol):
    """A `Runtime` of that kind."""

    failed_nodes: list[FailedNode]
    """After warming: what could not be loaded."""

    def warm_telling(self, importing: Importing) -> None:
        """`warm`, telling what happens. Raises Unforkable when the process must not be forked afterwards."""

    def warm_alone(self, spec: SessionSpec) -> None:
        """Instead of `warm`, in a process that will be this one session. Before the sandbox closes."""

    def readable(self) -> tuple[Path, ...]:
        """After warming: what sessions must be able to read besides."""
