"""What is known of the backends' files: which outputs the users have already, which inputs the backends have.

An answer from a backend's cache keeps the name its first fetch got. In memory only: what is lost with it is read out of
the backends' files (`moved_note`) or found by content.
"""

import secrets
from collections import OrderedDict
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from backend_pool.comfy.client import ComfyClient, FileRef
from backend_pool.files.sent_files import SentFiles
from backend_pool.files.user_files import Version
from backend_pool.model import Job

KNOWN_LIMIT = 20_000


@dataclass(frozen=True)
class Home:
    """Where a backend's file lies in the user's directories, which version of it (ETag) was fetched, and which version
    of what has that place it is: another file may have the name by now."""

    local: FileRef
    etag: str | None
    version: Version | None


class KnownFiles:
    """Files fetched before, by backend, user and upstream name: bounded, the oldest forgotten first."""

    def __init__(self) -> None:
        self._homes: OrderedDict[tuple[int, int, FileRef], Home] = OrderedDict()
        self._sent: WeakKeyDictionary[ComfyClient, SentFiles] = WeakKeyDictionary()
        self._last: OrderedDict[tuple[int, FileRef], tuple[int, str | None]] = OrderedDict()
        self._unended: OrderedDict[int, tuple[int, set[FileRef]]] = OrderedDict()
        self.epoch = secrets.token_hex(8)
        """Part of the salt of output nodes: what backends cached before this memory began is made anew."""

    def of_another(self, backend_id: int, user_id: int, ref: FileRef, etag: str | None) -> bool:
        """Whether this version of a backend's file has come home to another user already."""
        owner, version = self._last.get((backend_id, ref), (user_id, None))
        return owner != user_id and version == etag

    def sent_to(self, client: ComfyClient) -> SentFiles:
        """The inputs that a backend holds."""
        found = self._sent.get(client)
        if found is None:
            found = self._sent[client] = SentFiles(client)
        return found

    def get(self, backend_id: int, user_id: int, ref: FileRef) -> Home | None:
        """The place of an earlier fetch."""
        return self._homes.get((backend_id, user_id, ref))

    def put(self, backend_id: int, user_id: int, ref: FileRef, home: Home) -> None:
        """Remember a fetch."""
        self._homes[backend_id, user_id, ref] = home
        self._homes.move_to_end((backend_id, user_id, ref))
        self._last[backend_id, ref] = (user_id, home.etag)
        self._last.move_to_end((backend_id, ref))
        for memory in (self._homes, self._last):
            while len(memory) > KNOWN_LIMIT:
                memory.popitem(last=False)

    def brings(self, job: Job, local: FileRef) -> None:
        """The job puts a file there, and may take it back until it has ended."""
        self._unended.setdefault(job.key, (job.user_id, set()))[1].add(local)
        while len(self._unended) > KNOWN_LIMIT:
            self._unended.popitem(last=False)

    def ended(self, job_key: int) -> None:
        """What the job has brought stays."""
        self._unended.pop(job_key, None)

    def may_go(self, job: Job, local: FileRef) -> bool:
        """Whether another job of the same user may take back what lies there."""
        return any(local in places for places in self._of_others(job))

    def of_others(self, job: Job) -> set[FileRef]:
        """All such places."""
        return set().union(*self._of_others(job))

    def _of_others(self, job: Job) -> list[set[FileRef]]:
        found = list(self._unended.items())
        return [places for key, (user_id, places) in found if key != job.key and user_id == job.user_id]
