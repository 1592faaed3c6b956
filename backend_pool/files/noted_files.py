"""Where one job's files lie in its user's directories, as the job's document notes it: noted before a file gets its
name, so that a crash at any point neither loses it nor stores it twice.

A name alone proves nothing: another job may have taken it between the note and the file, or after a file was removed.
So a note tells which version of the file it means, and nothing else of that name counts as it, or is removed. Blocking.
"""

import contextlib
from collections.abc import Container, Iterable
from dataclasses import asdict

from backend_pool.comfy.client import FileRef
from backend_pool.files.references import homes, path_of
from backend_pool.files.user_files import UserDirs, Version, version_at
from backend_pool.model import JsonDict
from proxy.base.user_file_open import remove_file

REMEMBERED = 2
"""Versions of a file that is written more than once: a crash may leave the one before in its place."""


class NotedFiles:
    """The notes. `entries` are what the document keeps: `{source, local, fresh, versions}`."""

    def __init__(self, dirs: UserDirs, entries: Iterable[JsonDict]) -> None:
        self._dirs = dirs
        self.entries = list(entries)
        self._landed: set[FileRef] = set()

    def homes(self) -> dict[FileRef, FileRef]:
        """All places, by what the backend calls the files."""
        return homes(self.entries)

    def fresh(self) -> list[tuple[FileRef, FileRef]]:
        """What this job brought, and where to; not what was the user's before."""
        found = [entry for entry in self.entries if entry["fresh"]]
        return [(FileRef(**entry["source"]), FileRef(**entry["local"])) for entry in found]

    def put(self, source: FileRef, local: FileRef, version: Version | None, *, fresh: bool) -> None:
        """Note that `source` is, or is about to be, at `local`."""
        before = self._entry(source)
        versions = [] if version is None else [list(version)]
        if before is not None and before["local"] == asdict(local):
            versions = [*before.get("versions", []), *versions][-REMEMBERED:]
        entry = {"source": asdict(source), "local": asdict(local), "fresh": fresh, "versions": versions}
        self.drop(source)
        self.entries = [*self.entries, entry]

    def landed(self, source: FileRef) -> None:
        """It has its name: this process need not look at it again, whatever its user makes of it."""
        self._landed.add(source)

    def drop(self, source: FileRef) -> None:
        """Forget it; the file stays."""
        self.entries = [entry for entry in self.entries if entry["source"] != asdict(source)]
        self._landed.discard(source)

    def is_home(self, source: FileRef) -> bool:
        """Whether it lies in its place."""
        entry = self._entry(source)
        if entry is None:
            return False
        if source in self._landed:
            return path_of(self._dirs, FileRef(**entry["local"])).is_file()
        return self._holds(entry)

    def own_place(self, source: FileRef) -> FileRef | None:
        """Where this job may write over what lies there: a file of its own, or one of the user's that it works on."""
        entry = self._entry(source)
        mine = entry is not None and (not entry["fresh"] or self._holds(entry))
        return FileRef(**entry["local"]) if entry is not None and mine else None

    def discard(self, shown: Container[FileRef]) -> None:
        """Keep what is shown. What this job brought beside it is removed; the rest was the user's before, and stays."""
        kept = [entry for entry in self.entries if FileRef(**entry["local"]) in shown]
        for entry in self.entries:
            if entry not in kept and entry["fresh"] and self._holds(entry):
                local = FileRef(**entry["local"])
                with contextlib.suppress(OSError):  # what the user has made of the folder meanwhile is theirs
                    remove_file(self._dirs.root(local.type), path_of(self._dirs, local))
        self.entries = kept

    def _entry(self, source: FileRef) -> JsonDict | None:
        return next((entry for entry in self.entries if entry["source"] == asdict(source)), None)

    def _holds(self, entry: JsonDict) -> bool:
        found = version_at(path_of(self._dirs, FileRef(**entry["local"])))
        return found is not None and list(found) in entry.get("versions", [])
