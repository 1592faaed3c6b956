"""Files that ComfyUI's `ui` outputs name: found and renamed at whatever depth a custom node puts them. Pure.

A reference is a dictionary with a `filename`: the file is there or the job fails. A mention is a text that may be a
file's name, as `temp/bg_x.png` of Preview3D: where the backend has no such file, it was just a text.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path, PurePosixPath
from typing import Any

from backend_pool.comfy.client import FileRef
from backend_pool.files.user_files import FOLDERS, UserDirs, annotated, safe_filename, safe_subfolder

ECHO = "result"
"""The ui key under which Preview3D tells its inputs back: dictionaries there are the user's own words."""
WORDS = frozenset({"text", "string", "prompt", "workflow"})
"""Keys whose texts are read by people."""
SIDECAR = "workflow"
"""The key under which VideoHelperSuite names the picture beside a video that carries its workflow."""
LONGEST = 1024
MOST_MENTIONS = 100
"""Texts of one output that are looked up."""


def path_of(dirs: UserDirs, ref: FileRef) -> Path:
    """Where a file of the user's is."""
    return dirs.root(ref.type) / ref.subfolder / ref.filename


def references(value: Any) -> Iterator[FileRef]:
    """Every file that a ui output names, at whatever depth a custom node puts it."""
    if isinstance(value, list):
        for item in value:
            yield from references(item)
    elif isinstance(value, dict):
        ref = _reference(value)
        if ref is not None:
            yield ref
        else:
            yield from references([item for key, item in value.items() if key != ECHO])


def mentions(value: Any) -> list[FileRef]:
    """Files that texts of a ui output may name, each once."""
    found: dict[FileRef, None] = {}

    def look(text: str, *, echo: bool) -> str:
        ref = _mention(text, echo=echo)
        if ref is not None and len(found) < MOST_MENTIONS:
            found[ref] = None
        return text

    _texts(value, look)
    for sidecar in _sidecars(value):
        found[sidecar] = None
    return list(found)


def replaced(value: Any, places: Mapping[FileRef, FileRef]) -> Any:
    """The same output with every file named as `places` says."""

    def rename(text: str, *, echo: bool) -> str:
        ref = _mention(text, echo=echo)
        return text if ref is None or ref not in places else _renamed(text, places[ref])

    return _texts(_dictionaries(value, places), rename)


def _dictionaries(value: Any, places: Mapping[FileRef, FileRef]) -> Any:
    if isinstance(value, list):
        return [_dictionaries(item, places) for item in value]
    if not isinstance(value, dict):
        return value
    ref = _reference(value)
    if ref is None:
        return {key: item if key == ECHO else _dictionaries(item, places) for key, item in value.items()}
    named = {**value, **asdict(places[ref])} if ref in places else dict(value)
    sidecar = _sidecar(value, ref)
    if sidecar is not None and sidecar in places:
        named[SIDECAR] = places[sidecar].filename
    return named


def _texts(value: Any, change: Callable[..., str], *, echo: bool = False) -> Any:
    """Every text that may be a file's name, replaced by what `change` makes of it."""
    if isinstance(value, str):
        return change(value, echo=echo)
    if isinstance(value, list):
        return [_texts(item, change, echo=echo) for item in value]
    if isinstance(value, dict) and _reference(value) is None:
        return {key: item if key in WORDS else _texts(item, change, echo=key == ECHO) for key, item in value.items()}
    return value


def _reference(value: dict[str, Any]) -> FileRef | None:
    filename, kind = value.get("filename"), value.get("type", "output")
    if isinstance(filename, str) and filename and isinstance(kind, str) and kind in FOLDERS:
        return FileRef(filename, str(value.get("subfolder") or ""), kind)
    return None


def _sidecars(value: Any) -> Iterator[FileRef]:
    if isinstance(value, list):
        for item in value:
            yield from _sidecars(item)
    elif isinstance(value, dict):
        ref = _reference(value)
        sidecar = _sidecar(value, ref) if ref is not None else None
        if sidecar is not None:
            yield sidecar
        elif ref is None:
            yield from _sidecars([item for key, item in value.items() if key != ECHO])


def _sidecar(value: dict[str, Any], ref: FileRef) -> FileRef | None:
    name = value.get(SIDECAR)
    if isinstance(name, str) and name.endswith(".png") and name != ref.filename and safe_filename(name) is not None:
        return replace(ref, filename=name)
    return None


def _mention(text: str, *, echo: bool) -> FileRef | None:
    """`temp/x.png`, `output/sub/x.glb` or `x.glb [output]`; and where nodes tell their inputs back, `sub/x.glb`."""
    if len(text) > LONGEST or not PurePosixPath(text.split(" [", maxsplit=1)[0]).suffix:
        return None
    name, folder = annotated(text, "")
    if not folder:
        first, _, rest = name.partition("/")
        if first in ("temp", "output") and rest:
            name, folder = rest, first
        elif echo:
            folder = "output"
    subfolder, _, filename = name.rpartition("/")
    if folder not in ("temp", "output") or safe_filename(filename) is None or safe_subfolder(subfolder) is None:
        return None
    return FileRef(filename, subfolder, folder)


def _renamed(text: str, place: FileRef) -> str:
    """The user's name of a file in the form that `text` names the backend's."""
    name = f"{place.subfolder}/{place.filename}" if place.subfolder else place.filename
    if annotated(text, "")[1]:
        return f"{name} [{place.type}]"
    return f"{place.type}/{name}" if text.partition("/")[0] in ("temp", "output") else name
