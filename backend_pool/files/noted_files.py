"""Where one job's files lie in its user's directories, as the job's document notes it: noted before a file gets its
name, so that a crash at any point neither loses it nor stores it twice.

A name alone proves nothing: another job may have taken it between the note and the file, or after a file was removed.
So a note tells which version of the file it means, and nothing else of that name counts as it, or is removed. Blocking.
"""

import contextlib
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from types import MappingProxyType

from backend_pool.comfy.client import FileRef
from backend_pool.files.references import path_of
from backend_pool.files.user_files import UserDirs, Version, version_at
from backend_pool.model import JsonDict
from proxy.base.user_file_open import remove_file

REMEMBERED = 2
"""Versions of a file that is written more than once: a crash may leave the one before in its place."""


@dataclass(frozen=True)
class Note:
    """A file's place, and its versions, the newest last; `fresh` when the job brings it: the user did not have it."""

    local: FileRef
    fresh: bool
    versions: tuple[Version, ...]
    of: Version | None
    """Which version of the backend's file that is, where the backend tells."""


class NotedFiles:
    """The notes, by what the backend calls the files."""

    def __init__(self, dirs: UserDirs, entries: Iterable[JsonDict]) -> None:
        """`entries` as `entries` gave them."""
        self._dirs = dirs
        self._entries = {FileRef(**entry["source"]): entry for entry in entries}
        self._notes = {source: _read(entry) for source, entry in self._entries.items()}
        self._homes = {source: note.local for source, note in self._notes.items()}
        self._landed: set[FileRef] = set()

    @property
    def entries(self) -> list[JsonDict]:
        """What the document keeps: `{source, local, fresh, versions, of}`."""
        return list(self._entries.values())

    @property
    def homes(self) -> Mapping[FileRef, FileRef]:
        """All places."""
        return MappingProxyType(self._homes)

    def fresh(self) -> Iterator[tuple[FileRef, FileRef, Version | None]]:
        """What this job brought, where to, and in which version; not what was the user's before."""
        for source, note in self._notes.items():
            if note.fresh:
                yield source, note.local, note.versions[-1] if note.versions else None

    def put(
        self, source: FileRef, local: FileRef, version: Version | None, *, fresh: bool, of: Version | None = None
    ) -> None:
        """Note that `source` is, or is about to be, at `local`."""
        before = self._notes.get(source)
        versions = () if version is None else (version,)
        if before is not None and before.local == local:
            versions = (*before.versions, *versions)[-REMEMBERED:]
        self.drop(source)
        note = Note(local, fresh, versions, of)
        self._notes[source], self._homes[source] = note, local
        self._entries[source] = {"source": asdict(source), **asdict(note)}

    def landed(self, source: FileRef) -> None:
        """It has its name: this process does not look at it again, whatever its user makes of it."""
        self._landed.add(source)

    def drop(self, source: FileRef) -> None:
        """Forget it; the file stays."""
        for kept in (self._entries, self._notes, self._homes):
            kept.pop(source, None)
        self._landed.discard(source)

    def is_home(self, source: FileRef) -> bool:
        """Whether it lies in its place, or came there and its user has moved, changed or deleted it since."""
        note = self._notes.get(source)
        return note is not None and (source in self._landed or self._holds(note))

    def has(self, source: FileRef, of: Version) -> bool:
        """Whether that very version of the backend's file is home."""
        note = self._notes.get(source)
        if note is None or note.of != of:
            return False
        return source in self._landed or version_at(path_of(self._dirs, note.local)) in note.versions[-1:]

    def own_place(self, source: FileRef) -> FileRef | None:
        """Where this job may write over what lies there: a file of its own, or one of the user's that it works on."""
        note = self._notes.get(source)
        return note.local if note is not None and (not note.fresh or self._holds(note)) else None

    def discard(self, shown: Container[FileRef]) -> None:
        """Keep what is shown. What this job brought beside it is removed; the rest was the user's before, and stays."""
        for source, note in list(self._notes.items()):
            if note.local in shown:
                continue
            if note.fresh and self._holds(note):
                with contextlib.suppress(OSError):  # what the user has made of the folder meanwhile is theirs
                    remove_file(self._dirs.root(note.local.type), path_of(self._dirs, note.local))
            self.drop(source)

    def _holds(self, note: Note) -> bool:
        return version_at(path_of(self._dirs, note.local)) in note.versions


def _read(entry: JsonDict) -> Note:
    versions, of = tuple(map(_version, entry.get("versions", ()))), entry.get("of")
    return Note(FileRef(**entry["local"]), bool(entry["fresh"]), versions, None if of is None else _version(of))


def _version(pair: Sequence[int]) -> Version:
    size, mtime_ns = pair
    return size, mtime_ns
