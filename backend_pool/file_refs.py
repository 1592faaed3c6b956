"""Files that ComfyUI's `ui` outputs name: found and renamed at whatever depth a custom node puts them. Pure."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from backend_pool.comfy_client import FileRef
from backend_pool.user_files import FOLDERS

ECHO = "result"
"""The ui key under which nodes such as Preview3D tell their inputs back: what stands there is the user's own words."""


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


def replaced(value: Any, places: Mapping[FileRef, FileRef]) -> Any:
    """The same output with every file named as `places` says."""
    if isinstance(value, list):
        return [replaced(item, places) for item in value]
    if not isinstance(value, dict):
        return value
    ref = _reference(value)
    if ref is not None:
        return {**value, **asdict(places[ref])} if ref in places else value
    return {key: replaced(item, places) for key, item in value.items()}


def _reference(value: dict[str, Any]) -> FileRef | None:
    filename, kind = value.get("filename"), value.get("type", "output")
    if isinstance(filename, str) and filename and isinstance(kind, str) and kind in FOLDERS:
        return FileRef(filename, str(value.get("subfolder") or ""), kind)
    return None
