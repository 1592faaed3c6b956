"""Chooses names in the user's directories for files that arrive together: the user's own next numbers. Blocking.

Files that a backend gave one number, as a clip, its sound and its picture, get one here too. What a job brought before,
or an earlier job for the same file of a backend's cache, keeps its name. Gives no file its name.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from backend_pool.comfy.client import FileRef
from backend_pool.errors import FileGone
from backend_pool.files.known_files import Home
from backend_pool.files.references import path_of
from backend_pool.files.user_files import UserDirs, counted, free_names, landing, safe_subfolder, twin, version_at
from proxy.base.file_owner import as_owner_of

Numbers = dict[tuple[str, str, str, int], list[tuple[FileRef, int]]]
"""By folder, prefix and number at the backend, which files there got which number here."""


@dataclass
class Arrival:
    """A fetched file on its way to its name; without `partial` the user has it already, at `home`."""

    source: FileRef
    partial: Path | None
    home: Home
    cached: bool = False
    """Whether it is older than the job, so that the user may have it from an earlier one."""


@dataclass
class Placing:
    """Of one round. `folder` is the user's at the backend, `noted` what the job has had places for."""

    dirs: UserDirs
    folder: str
    noted: Mapping[FileRef, FileRef]
    others: Collection[FileRef] = ()
    """What other jobs of the user may yet take back: nothing to be shown in a file's stead."""
    _taken: set[FileRef] = field(default_factory=set)
    _before: Numbers = field(default_factory=dict)
    _numbers: Numbers = field(default_factory=dict)
    """Of this round; they count before the others."""
    _next: dict[tuple[str, str, str], int] = field(default_factory=dict)

    def choose(self, arrivals: Iterable[Arrival]) -> list[FileRef]:
        """A place for each; the noted one if there is one, as after a crash between noting and landing."""
        for source, local in self.noted.items():
            _remember(self._before, source, local)
        return [self._place(arrival) for arrival in arrivals]

    def _place(self, arrival: Arrival) -> FileRef:
        self._find_again(arrival)
        local = self.noted.get(arrival.source)
        if arrival.partial is None:
            local = arrival.home.local
        elif local is None or path_of(self.dirs, local).exists():
            local = self._free(arrival.source)
        self._taken.add(local)
        _remember(self._numbers, arrival.source, local)
        return local

    def _find_again(self, arrival: Arrival) -> None:
        """For a file out of the backend's cache, the one that an earlier job brought home and nobody remembers."""
        source = arrival.source
        if arrival.partial is None or not arrival.cached or source in self.noted:
            return
        subfolder, root = self._subfolder(source), self.dirs.root(source.type)
        taken = {*self._taken, *self.noted.values(), *self.others}
        names = {ref.filename for ref in taken if (ref.subfolder, ref.type) == (subfolder, source.type)}
        name = twin(root, landing(root, subfolder), source.filename, arrival.partial, names)
        if name is not None:
            local = FileRef(name, subfolder, source.type)
            arrival.partial = None
            arrival.home = Home(local, arrival.home.etag, version_at(path_of(self.dirs, local)))

    def _free(self, source: FileRef) -> FileRef:
        subfolder, root = self._subfolder(source), self.dirs.root(source.type)
        folder, group = landing(root, subfolder), counted(source.filename)
        line = None if group is None else (subfolder, source.type, group[0])
        number = self._number(source) or (None if line is None else self._next.get(line))
        names = _Names(self._taken, subfolder, source.type)
        with as_owner_of(root):
            name = next(free_names(folder, source.filename, names, number), None)
        if name is None:
            raise FileGone(f"There is no free name left for {source.filename}; tidy the folder")
        mine = counted(name)
        if line is not None and mine is not None:
            self._next[line] = mine[1] + 1
        return FileRef(name, subfolder, source.type)

    def _number(self, source: FileRef) -> int | None:
        """The number of a file that the backend gave the same one."""
        group = counted(source.filename)
        if group is None:
            return None
        key = (source.subfolder, source.type, *group)
        found = [*self._numbers.get(key, ()), *self._before.get(key, ())]
        return next((number for other, number in found if other != source), None)

    def _subfolder(self, source: FileRef) -> str:
        subfolder = safe_subfolder(source.subfolder) or ""
        return "" if subfolder == self.folder else subfolder.removeprefix(f"{self.folder}/")


def _remember(numbers: Numbers, source: FileRef, local: FileRef) -> None:
    group, mine = counted(source.filename), counted(local.filename)
    if group is not None and mine is not None:
        numbers.setdefault((source.subfolder, source.type, *group), []).append((source, mine[1]))


@dataclass(frozen=True)
class _Names:
    """Names in one folder that are promised."""

    taken: set[FileRef]
    subfolder: str
    kind: str

    def __contains__(self, name: object) -> bool:
        return FileRef(str(name), self.subfolder, self.kind) in self.taken
