"""Gives a file that a worker handed over its place in the user's directories. Blocking.

The worker knew the user's names, so a new file keeps its own; only where one of that name has come meanwhile it gets
another. What the job wrote into a file of the user's replaces that, and what it wrote on at the end is added.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from backend_pool.comfy.client import FileRef
from backend_pool.errors import FileGone
from backend_pool.files.incoming import arrive, make_durable
from backend_pool.files.references import path_of
from backend_pool.files.user_files import (
    FOLDERS,
    UserDirs,
    disk_error,
    free_names,
    landing,
    safe_filename,
    safe_subfolder,
)
from backend_pool.model import JsonDict
from proxy.base.file_owner import as_owner_of
from proxy.base.user_file_open import create_file, open_file, remove_file


@dataclass(frozen=True)
class Written:
    """A file that a job wrote, as its worker lists it. `begin`: bytes before it are the user's own."""

    ref: FileRef
    path: str
    size: int
    mtime_ns: int
    begin: int
    known: bool
    """Whether the user had a file of that name when the job began."""
    stray: bool = False
    """Whether it lies in the worker's own directories, where a node that asked for them too early wrote it."""


def written(entry: JsonDict) -> Written:
    """An entry of the worker's list, checked. Raises FileGone for one outside of the user's directories."""
    path = str(entry.get("path"))
    kind, _, rest = path.partition("/")
    name = PurePosixPath(rest)
    subfolder = safe_subfolder(str(name.parent))
    if kind not in FOLDERS or kind == "input" or subfolder is None or safe_filename(name.name) is None:
        raise FileGone(f"The worker named a file outside its folders: {path}")
    numbers = [entry.get(key) for key in ("size", "mtime_ns", "from")]
    if not all(isinstance(number, int) and number >= 0 for number in numbers):
        raise FileGone(f"The worker did not say what the file {path} is")
    size, mtime_ns, begin = (int(number or 0) for number in numbers)
    known, stray = (entry.get(key) is True for key in ("known", "stray"))
    return Written(FileRef(name.name, subfolder, kind), path, size, mtime_ns, begin, known, stray)


class Lander:
    """Places files of one job."""

    def __init__(self, dirs: UserDirs) -> None:
        self._dirs = dirs

    def path(self, ref: FileRef) -> Path:
        """Where a file of the user's is."""
        return path_of(self._dirs, ref)

    def choose(self, file: Written, own: FileRef | None) -> FileRef:
        """The name it is to get; `own` is the one it got from this job before. Raises FileGone if none is left."""
        folder = landing(self._dirs.root(file.ref.type), file.ref.subfolder)
        if own is not None:
            return own
        if not (folder / file.ref.filename).exists() or self._replaces(file):
            return file.ref
        name = next(free_names(folder, file.ref.filename), None)
        if name is None:
            raise FileGone(f"There is no free name left for {file.ref.filename}; tidy the folder")
        return FileRef(name, file.ref.subfolder, file.ref.type)

    def _replaces(self, file: Written) -> bool:
        """Whether it is a new version of the user's file; what was added fits only the file it was added to."""
        return file.known and (not file.begin or self.path(file.ref).stat().st_size == file.begin)

    def complete(self, partial: Path, file: Written) -> None:
        """Put the user's own beginning before what the job added to their file. Raises DiskFull."""
        target, root = self.path(file.ref), self._dirs.root(file.ref.type)
        try:
            with as_owner_of(root):
                if file.begin and target.is_file():
                    _complete(root, partial, target, file.begin)
        except OSError as error:
            raise disk_error(error) from error

    def land(self, partial: Path, local: FileRef, *, replace: bool) -> bool:
        """Give it that name; False when another file has taken it meanwhile. Raises DiskFull."""
        target = self.path(local)
        landing(self._dirs.root(local.type), local.subfolder)
        with as_owner_of(self._dirs.root(local.type)):
            return self._land(partial, target, local, replace=replace)

    def _land(self, partial: Path, target: Path, local: FileRef, *, replace: bool) -> bool:
        try:
            if not replace:
                return arrive(partial, target, durable=local.type != "temp")
            make_durable(self._dirs.root(local.type), partial)
            partial.replace(target)
        except OSError as error:
            raise disk_error(error) from error
        return True


def _complete(root: Path, partial: Path, earlier: Path, begin: int) -> None:
    whole = partial.with_name(f"{partial.name}w")
    try:
        with create_file(root, whole) as out:
            with open_file(root, earlier) as content:
                left = begin
                while left and (block := content.read(min(left, 1 << 20))):
                    out.write(block)
                    left -= len(block)
            with open_file(root, partial) as content:
                shutil.copyfileobj(content, out)
        whole.replace(partial)
    finally:
        remove_file(root, whole)
