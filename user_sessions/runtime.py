"""The seam between the session host and what runs inside a session: `SessionSpec` in, a served Unix socket out.

Values and a Protocol only. A runtime is made in the zygote, warmed there once, and served in each forked child after
the sandbox closed: from then on only the directories of the spec are writable, `public`, the Python installation and
the runtime's own read-only paths are readable, and nothing else exists. What a runtime caches on disk for all sessions
must therefore be made in `warm`, not in `serve`.
"""

import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from proxy.base.errors import BadInput
from user_sessions.directories import Directories

SECRET_HEADER = "X-Cluster-Session-Secret"  # noqa: S105 - the header's name, not a secret


@dataclass(frozen=True)
class SessionSpec:
    """Everything a session may know. `user` is the slug; all paths are absolute."""

    session_id: str
    user: str
    directories: Directories
    public: Path
    socket: Path
    secret: str = field(repr=False)
    log: Path
    max_upload_mb: int

    def to_json(self) -> dict[str, Any]:
        """The form that travels to the session host; carries the secret, so it must never be logged."""
        directories = {name: str(getattr(self.directories, name)) for name in ("input", "output", "temp", "user")}
        return {
            "session_id": self.session_id,
            "user": self.user,
            "directories": directories,
            "public": str(self.public),
            "socket": str(self.socket),
            "secret": self.secret,
            "log": str(self.log),
            "max_upload_mb": self.max_upload_mb,
        }

    @staticmethod
    def from_json(data: object) -> "SessionSpec":
        """Read that form. Raises BadInput naming the first field that is missing or wrong."""
        fields = _object(data, "spec")
        folders = _object(fields.get("directories"), "directories")
        limit = fields.get("max_upload_mb")
        if not isinstance(limit, int) or isinstance(limit, bool) or limit < 1:
            raise BadInput("`max_upload_mb` must be a whole number above 0.")
        return SessionSpec(
            session_id=_text(fields, "session_id"),
            user=_text(fields, "user"),
            directories=Directories(*(_path(folders, name) for name in ("input", "output", "temp", "user"))),
            public=_path(fields, "public"),
            socket=_path(fields, "socket"),
            secret=_text(fields, "secret"),
            log=_path(fields, "log"),
            max_upload_mb=limit,
        )


class Runtime(Protocol):
    """What a session runs."""

    name: str

    def warm(self) -> None:
        """Once, in the zygote, before any fork: import and preload what all sessions share. No threads, no loop."""

    async def serve(self, spec: SessionSpec, listener: socket.socket, ready: Callable[[], None]) -> None:
        """In the child: serve `listener` to requests that carry `spec.secret` in `SECRET_HEADER`.

        The listener is a Unix socket that listens on `spec.socket` (0600): the sandbox lets nobody make another. Calls
        `ready` once requests are answered. Ends when it is cancelled; whatever it raises ends the session.
        """


def _object(value: object, name: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise BadInput(f"`{name}` must be an object.")
    return value


def _text(fields: Mapping[str, Any], name: str) -> str:
    value = fields.get(name)
    if not isinstance(value, str) or not value or "\0" in value:
        raise BadInput(f"`{name}` must be a text that is not empty.")
    return value


def _path(fields: Mapping[str, Any], name: str) -> Path:
    path = Path(_text(fields, name))
    if not path.is_absolute() or ".." in path.parts:
        raise BadInput(f"`{name}` must be an absolute path without `..`.")
    return path
