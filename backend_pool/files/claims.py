"""Which files of a backend one job may bring home. Pure.

Nodes can be made to name any file, also another user's, so a name alone proves nothing. In the user's own folder, whose
name nobody else knows, everything is theirs; elsewhere only what this job made.
"""

import json
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

from backend_pool.comfy.client import FileRef
from backend_pool.files.known_files import KnownFiles
from backend_pool.files.user_files import safe_subfolder
from backend_pool.model import Job, JsonDict

CLOCK_SLACK_S = 2.0
"""HTTP dates have whole seconds, and a file system's clock may run a little behind its host's."""


class Claims:
    """Judges the files that one job's outputs name."""

    def __init__(self, job: Job, folder: str, prompt: JsonDict, known: KnownFiles) -> None:
        self._job = job
        self._folder = folder
        self._words = json.dumps(prompt)
        self._known = known
        self.began_ms: float | None = None
        """When the job began by the backend's clock: what it made is not older."""
        self.cached = False
        """Whether the backend served any node out of its cache."""

    def hear(self, kind: str, data: JsonDict) -> None:
        """A message of the backend about the job."""
        if kind == "execution_cached" and data.get("nodes"):
            self.cached = True

    def may_ask_for(self, ref: FileRef) -> bool:
        """Whether to fetch it at all: no input files, and outside the own folder none that the prompt itself names."""
        if ref.type == "input":
            return False
        return self.in_own_folder(ref) or json.dumps(ref.filename)[1:-1] not in self._words

    def may_keep(self, ref: FileRef, headers: Mapping[str, str]) -> bool:
        """Whether what `/view` sends is this job's: made since it began, or fetched before, and nobody else's."""
        if self.in_own_folder(ref):
            return True
        backend_id, user_id = self._job.backend_id or 0, self._job.user_id
        if self._known.of_another(backend_id, user_id, ref, headers.get("ETag")):
            return False
        if self._known.get(backend_id, user_id, ref) is not None:
            return True
        made = parsed_date(headers.get("Last-Modified"))
        return made is not None and self.began_ms is not None and made >= self.began_ms / 1000 - CLOCK_SLACK_S

    def made_before(self, headers: Mapping[str, str]) -> bool:
        """Whether a file is older than the job: the backend served it from its cache."""
        made = parsed_date(headers.get("Last-Modified"))
        return made is not None and self.began_ms is not None and made < self.began_ms / 1000 - 1.0

    def may_be_cached(self, ref: FileRef) -> bool:
        """Whether the backend may have named a file of an earlier job: rendering past its cache makes it anew."""
        return self.cached and self.in_own_folder(ref)

    def in_own_folder(self, ref: FileRef) -> bool:
        """Whether it lies where only this user's jobs can write."""
        first = (safe_subfolder(ref.subfolder) or "").split("/")[0]
        return ref.type == "output" and first == self._folder


def parsed_date(text: str | None) -> float | None:
    """An HTTP date in seconds since the epoch, None for anything else."""
    try:
        return parsedate_to_datetime(text or "").timestamp()
    except (ValueError, TypeError):
        return None
