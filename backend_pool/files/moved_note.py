"""What stands in a backend's output file once the file is at its user's: a note of where.

ComfyUI has no route that deletes a file, but an upload may overwrite one. A backend that serves the name again from its
cache then says where the file is, also after a restart of this proxy. Pure.
"""

import json
from dataclasses import asdict, dataclass

from backend_pool.comfy.client import FileRef
from backend_pool.files.user_files import FOLDERS, Version, safe_filename, safe_subfolder

KEY = "comfy-cluster: this file is with its user, as"
LONGEST = 4096


@dataclass(frozen=True)
class Moved:
    """Where the file went, and which version of what has that place it is."""

    place: FileRef
    version: Version


def note_of(moved: Moved) -> bytes:
    """The note."""
    return json.dumps({KEY: asdict(moved.place), "version": moved.version}).encode()


def moved_in(content: bytes) -> Moved | None:
    """What a note tells, None for any other file. It leads into the user's own directories, whoever wrote it."""
    if not content.startswith(b'{"comfy-cluster') or len(content) > LONGEST:
        return None
    try:
        found = json.loads(content)
        place, (size, mtime_ns) = FileRef(**found[KEY]), found.get("version", (0, 0))
        named = safe_filename(place.filename) is not None and safe_subfolder(place.subfolder) is not None
        return Moved(place, (size, mtime_ns)) if named and place.type in FOLDERS else None
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
