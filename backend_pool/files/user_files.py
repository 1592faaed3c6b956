"""A user's directories as jobs see them: names in ComfyUI's annotated form, containment, counters.

Blocking; callers run these in threads. Nothing here follows a name out of the user's own directories (ComfyUI 0.8.0
itself loads `../../x` and absolute paths, protocol §4.2).
"""

import contextlib
import errno
import hashlib
import mimetypes
import os
import re
import stat
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from proxy.base.errors import BadInput, DiskFull
from proxy.base.file_owner import as_owner_of
from proxy.base.user_file_open import open_file

FOLDERS = ("input", "output", "temp")
_ANNOTATED = re.compile(r"^(?P<name>.*?)(?: \[(?P<folder>input|output|temp)\])?\Z", re.DOTALL)
_COUNTED = re.compile(r"^(?P<prefix>.*)_(?P<number>\d{5,})(?P<tail>(?:_|-[^./\d]*)?\.[^./]*)\Z", re.DOTALL)
SCENES = "3d"
"""Load3D offers and takes only what lies below this folder of the input directory."""
SCENE_KIND = "model/"
SCENE_SUFFIXES = frozenset({".gltf", ".glb", ".obj", ".fbx", ".stl"})
HASH_CHUNK = 1024 * 1024
ATTEMPTS = 1000
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

Version = tuple[int, int]
"""Size in bytes and time of the last change in nanoseconds."""


@dataclass(frozen=True)
class UserDirs:
    """Existing directories of one user; `shared` holds read-only input files for everybody."""

    input: Path
    output: Path
    temp: Path
    shared: Path | None = None

    def root(self, folder: str) -> Path:
        """The directory of `input`, `output` or `temp`."""
        if folder not in FOLDERS:
            raise ValueError(f"unknown folder {folder!r}")
        return Path(getattr(self, folder))

    def root_of(self, path: Path) -> Path:
        """The one of these that a path as `resolve` finds it lies in. Raises PermissionError when none does."""
        for root in (self.input, self.output, self.temp, self.shared):
            if root is not None and path.is_relative_to(root.resolve()):
                return root
        raise PermissionError(errno.EACCES, "it lies in none of the user's directories", str(path))


def annotated(value: str, default: str = "input") -> tuple[str, str]:
    """Name and folder of a prompt's value such as `sub/a.png [output]`."""
    match = _ANNOTATED.match(value)
    assert match is not None  # every text matches
    return match["name"], match["folder"] or default


def resolve(dirs: UserDirs, value: str, default: str = "input") -> Path | None:
    """The file a prompt's value names, such as `a.png`, `sub/a.png [output]`; None unless it is the user's to read."""
    name, folder = annotated(value, default)
    if not _speakable(value) or folder not in FOLDERS:
        return None
    roots = [dirs.root(folder)]
    if folder == "input" and dirs.shared is not None:
        roots.append(dirs.shared)
    for root in roots:
        try:
            with as_owner_of(root):  # a link leads nowhere that the user could not go
                path = (root / name).resolve()
                if path.is_relative_to(root.resolve()) and path.is_file():
                    return path
        except (OSError, RuntimeError):  # name too long, symlink loop
            continue
    return None


def listing(dirs: UserDirs, folder: str, kind: str) -> list[str]:
    """Sorted names at the top of a folder whose media type begins with `kind`, as ComfyUI's file lists show them.

    Of scenes (`model/`) those anywhere below the folder `3d`, as Load3D lists them.
    """
    if kind == SCENE_KIND:
        with contextlib.suppress(OSError), as_owner_of(dirs.root(folder)):
            return sorted(_scenes(dirs.root(folder)))
        return []
    names: set[str] = set()
    roots = [dirs.root(folder), *([dirs.shared] if folder == "input" and dirs.shared is not None else [])]
    for root in roots:
        try:
            with as_owner_of(root), os.scandir(root) as entries:
                names.update(entry.name for entry in entries if not entry.name.startswith(".") and _is_file(entry))
        except OSError:
            continue
    return sorted(name for name in names if not kind or _media_type(name).startswith(kind))


def _scenes(root: Path) -> Iterator[str]:
    for place, _, names in os.walk(root / SCENES):
        for name in names:
            if PurePosixPath(name).suffix.lower() in SCENE_SUFFIXES:
                yield (Path(place) / name).relative_to(root).as_posix()


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:  # a symlink loop
        return False


def _media_type(name: str) -> str:
    """By the suffix alone: the standard library takes a name for a URL and stumbles over `[`."""
    return mimetypes.guess_type(f"x{PurePosixPath(name).suffix}")[0] or ""


def digest(content: BinaryIO) -> str:
    """SHA-256 of an open file's content, hexadecimal."""
    found = hashlib.sha256()
    while chunk := content.read(HASH_CHUNK):
        found.update(chunk)
    return found.hexdigest()


def version_of(content: BinaryIO) -> Version:
    """Size and time of the last change of an open file: another when the content is."""
    found = os.fstat(content.fileno())
    return found.st_size, found.st_mtime_ns


def version_at(path: Path) -> Version | None:
    """The same of the file of that name, None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return (found.st_size, found.st_mtime_ns) if stat.S_ISREG(found.st_mode) else None


def safe_subfolder(subfolder: str) -> str | None:
    """A relative subfolder in normal form, None when it would leave the directory."""
    path = PurePosixPath(subfolder.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or not _speakable(subfolder):
        return None
    return "" if str(path) == "." else str(path)


def safe_filename(filename: str) -> str | None:
    """A plain file name, None for anything that is a path."""
    bad = filename in ("", ".", "..") or "/" in filename or "\\" in filename or not _speakable(filename)
    return None if bad or len(filename.encode()) > 255 else filename


def _speakable(name: str) -> bool:
    """Whether a disk can be asked for it: JSON may hold null characters and halves of surrogate pairs."""
    try:
        return b"\0" not in name.encode()
    except UnicodeEncodeError:
        return False


def landing(root: Path, subfolder: str) -> Path:
    """The directory a file goes to, made if need be. Raises BadInput for one that a link leads out of `root`."""
    folder = root / subfolder
    try:
        with as_owner_of(root):
            if not folder.resolve().is_relative_to(root.resolve()):
                raise BadInput(f"The folder {subfolder} leads out of your own directory; remove that link.")
            folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise disk_error(error) from error
    return folder


def counted(filename: str) -> tuple[str, int] | None:
    """Prefix and number of a name such as `ComfyUI_00003_.png` or `clip_00003-audio.mp4`."""
    match = _COUNTED.match(filename)
    return (match["prefix"], int(match["number"])) if match is not None else None


def free_names(folder: Path, filename: str, taken: Container[str] = (), number: int | None = None) -> Iterator[str]:
    """Names a new file may take, best first, when a backend calls it `filename`; `taken` are promised to others.

    A counted name (`ComfyUI_00003_.png`) takes the user's own next number, as if ComfyUI had written it there, or
    `number`, if the backend gave it the same as another that has this one; another name that is taken becomes
    `name (1).ext`.
    """
    names = _wanted_names(folder, filename, number)
    return (name for name in names if name not in taken and not (folder / name).exists())


def _wanted_names(folder: Path, filename: str, number: int | None) -> Iterator[str]:
    match = _COUNTED.match(filename)
    if match is not None:
        prefix, width, tail = match["prefix"], len(match["number"]), match["tail"]
        if number is not None:
            yield f"{prefix}_{number:0{width}}{tail}"
        first = next_counter([entry.name for entry in folder.iterdir()], prefix)
        yield from (f"{prefix}_{step:0{width}}{tail}" for step in range(first, first + ATTEMPTS))
        return
    stem, dot, ext = filename.rpartition(".")
    if not dot or not stem:
        stem, dot, ext = filename, "", ""
    yield from (f"{stem} ({n}){dot}{ext}" if n else filename for n in range(ATTEMPTS))


def twin(root: Path, folder: Path, filename: str, partial: Path, taken: Container[str] = ()) -> str | None:
    """The name of a file in `folder` with the very content of `partial` that a backend might have called `filename`,
    none of `taken`."""
    group, suffix = counted(filename), PurePosixPath(filename).suffix
    with as_owner_of(root), open_file(root, partial) as arrived:
        size, found = version_of(arrived)[0], ""
        for name in [filename] if group is None else sorted(_group_of(folder, group[0], suffix)):
            with contextlib.suppress(OSError):  # gone meanwhile, or no plain file
                if name in taken or (folder / name).stat().st_size != size:
                    continue
                with open_file(root, folder / name) as there:
                    found = found or digest(arrived)
                    if digest(there) == found:
                        return name
    return None


def _group_of(folder: Path, prefix: str, suffix: str) -> Iterator[str]:
    for entry in folder.iterdir():
        group = counted(entry.name)
        if group is not None and group[0] == prefix and entry.suffix == suffix:
            yield entry.name


def next_counter(names: Sequence[str], prefix: str) -> int:
    """ComfyUI's get_save_image_path rule: one more than the largest number among files of that prefix."""
    matches = (_COUNTED.match(name) for name in names)
    numbers = [int(m["number"]) for m in matches if m is not None and m["prefix"].lower() == prefix.lower()]
    return max(numbers, default=0) + 1


def disk_error(error: OSError) -> DiskFull:
    """What to tell the user when writing failed."""
    advice = "Free some space, then run it again." if error.errno in FULL else "Mend the folder, then run it again."
    return DiskFull(f"The picture could not be stored: {error.strerror or error}. {advice}")
