"""What a worker without shared storage needs of a user before a job: the files its prompt names, and the names of the
files it may count on or overwrite. Blocking, apart from that pure.
"""

import contextlib
import os
import posixpath
import re
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from backend_pool.files.incoming import INCOMING
from backend_pool.files.user_files import UserDirs, annotated, digest, resolve, safe_subfolder, version_of
from backend_pool.files.user_models import OWN_FOLDERS
from backend_pool.model import JsonDict
from backend_pool.prompts.needs import MODEL_SUFFIXES
from backend_pool.prompts.texts import texts_in
from proxy.base.file_owner import as_owner_of
from proxy.base.user_file_open import open_file

LONGEST = 1024
"""Characters of a text that may name a file."""
MOST_STUBS = {"output": 10_000, "temp": 500}
"""Names of a directory that a worker is told, the newest first."""
HASHES_KEPT = 4096
_NUMBER = re.compile(r"\d+(?=\D*\Z)")

Seen = tuple[str, int, int, int]


@dataclass(frozen=True)
class Input:
    """A file to send: where the job looks for it, as `input/sub/a.png`, and what it is."""

    path: str
    source: Path
    sha256: str
    mtime_ns: int
    shared: bool
    """Whether it is everybody's, not in the user's own directories."""


@dataclass
class Hashes:
    """Hashes of files that have not changed since they were taken; the longest unused go."""

    _known: OrderedDict[Seen, str] = field(default_factory=OrderedDict)

    def of(self, root: Path, path: Path) -> tuple[str, int]:
        """SHA-256 and modification time of a file below the directory `root` of a user. Raises OSError."""
        with open_file(root, path) as content:
            size, mtime_ns = version_of(content)
            seen = (str(path), os.fstat(content.fileno()).st_ino, size, mtime_ns)
            found = self._known.pop(seen, None) or digest(content)
        self._known[seen] = found
        while len(self._known) > HASHES_KEPT:
            self._known.popitem(last=False)
        return found, mtime_ns


def named_inputs(prompt: JsonDict, dirs: UserDirs, hashes: Hashes) -> list[Input]:
    """Every file of the user that some text of the prompt names, in whatever input of whatever node."""
    found: dict[str, Input] = {}
    for node in prompt.values():
        for text in filter(_may_name, texts_in(node.get("inputs"))):
            for path, source in _named(text, dirs):
                if path not in found:
                    sha256, mtime_ns = hashes.of(dirs.root_of(source), source)
                    shared = dirs.shared is not None and source.is_relative_to(dirs.shared.resolve())
                    found[path] = Input(path, source, sha256, mtime_ns, shared)
    return list(found.values())


def name_stubs(dirs: UserDirs, besides: set[str]) -> list[JsonDict]:
    """Names in output and temp that a job must know: of counted ones the last of each series, else all, newest first.

    Save nodes count on from the highest number that they see; more of a series would only cost time.
    """
    stubs: list[JsonDict] = []
    for kind, most in MOST_STUBS.items():
        series: dict[tuple[str, str], tuple[int, JsonDict]] = {}
        root = dirs.root(kind)
        with contextlib.suppress(FileNotFoundError), as_owner_of(root):  # a swapped folder shows nobody else's names
            for file, path in _files(root, kind):
                if path not in besides:
                    _note(series, file, path)
        found = sorted((stub for _, stub in series.values()), key=lambda stub: -stub["mtime_ns"])
        stubs += found[:most]
    return stubs


def _files(root: Path, kind: str) -> Iterator[tuple[Path, str]]:
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if name != INCOMING]
        for name in names:
            file = Path(folder) / name
            yield file, f"{kind}/{file.relative_to(root).as_posix()}"


def _note(series: dict[tuple[str, str], tuple[int, JsonDict]], file: Path, path: str) -> None:
    match = _NUMBER.search(file.name)
    number = int(match[0]) if match is not None and len(match[0]) < 18 else 0
    pattern = file.name if match is None else f"{file.name[: match.start()]}\0{file.name[match.end() :]}"
    key = (posixpath.dirname(path), pattern.lower())
    if key in series and series[key][0] >= number:
        return
    try:
        stat = file.lstat()
    except OSError:  # removed just now
        return
    series[key] = (number, {"path": path, "size": stat.st_size, "mtime_ns": stat.st_mtime_ns})


def _may_name(text: str) -> bool:
    return 0 < len(text) <= LONGEST and "\n" not in text


def _named(text: str, dirs: UserDirs) -> Iterator[tuple[str, Path]]:
    source = resolve(dirs, text)
    if source is not None:
        name, kind = annotated(text, "input")
        path = safe_subfolder(posixpath.normpath(name.replace("\\", "/")))
        if path:
            yield f"{kind}/{path}", source
    if not text.lower().endswith(MODEL_SUFFIXES):
        return
    for folder in OWN_FOLDERS.values():  # a model that an earlier job of theirs saved
        source = resolve(dirs, f"{folder}/{text}", "output")
        if source is not None and (path := safe_subfolder(f"{folder}/{text}")):
            yield f"output/{path}", source
