"""Which backend files the users have already: an answer from a backend's cache keeps the name its first fetch got."""

from collections import OrderedDict
from dataclasses import dataclass

from backend_pool.comfy_client import FileRef

KNOWN_LIMIT = 20_000


@dataclass(frozen=True)
class Home:
    """Where a backend's file lies in the user's directories, and the version (ETag) that was fetched."""

    local: FileRef
    etag: str | None


class KnownFiles:
    """Files fetched before, by backend, user and upstream name: bounded, the oldest forgotten first."""

    def __init__(self) -> None:
        self._homes: OrderedDict[tuple[int, int, FileRef], Home] = OrderedDict()

    def get(self, backend_id: int, user_id: int, ref: FileRef) -> Home | None:
        """The place of an earlier fetch."""
        return self._homes.get((backend_id, user_id, ref))

    def put(self, backend_id: int, user_id: int, ref: FileRef, home: Home) -> None:
        """Remember a fetch."""
        self._homes[backend_id, user_id, ref] = home
        self._homes.move_to_end((backend_id, user_id, ref))
        while len(self._homes) > KNOWN_LIMIT:
            self._homes.popitem(last=False)
