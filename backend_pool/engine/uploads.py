"""Storing uploaded files as ComfyUI does: same content keeps its name, other content gets a number. Blocking."""

import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from PIL.PngImagePlugin import PngInfo

from proxy.base.pictures import open_picture

BLOCK = 1024 * 1024


@dataclass(frozen=True)
class Upload:
    """A file on its way to `folder / filename`, both inside the directory `kind`."""

    file: IO[bytes]
    folder: Path
    filename: str
    kind: str
    subfolder: str
    overwrite: bool


def save_upload(upload: Upload) -> str:
    """Store it and return the name it got."""
    path, taken = _free_path(upload)
    if not taken:
        with path.open("wb") as target:
            shutil.copyfileobj(upload.file, target)
    return path.relative_to(upload.folder).as_posix()


def merge_mask(upload: Upload, original: Path) -> str:
    """Store the original with the upload's alpha channel, its text chunks kept. Raises OSError for what is no image."""
    path, taken = _free_path(upload)
    if taken:
        return path.relative_to(upload.folder).as_posix()
    with open_picture(original) as source, open_picture(upload.file) as mask:
        metadata = PngInfo()
        for key, value in getattr(source, "text", {}).items():
            metadata.add_text(key, value)
        merged = source.convert("RGBA")
        merged.putalpha(mask.convert("RGBA").getchannel("A").resize(merged.size))
        merged.save(path, format="PNG", compress_level=4, pnginfo=metadata)
    return path.relative_to(upload.folder).as_posix()


def _free_path(upload: Upload) -> tuple[Path, bool]:
    """Where to store, and whether the very same content is there already."""
    path = upload.folder / upload.filename
    path.parent.mkdir(parents=True, exist_ok=True)
    if upload.overwrite:
        return path, False
    digest = None
    number = 0
    while path.exists():
        digest = digest or _digest(upload.file)
        upload.file.seek(0)
        with path.open("rb") as present:
            if _digest(present) == digest:
                return path, True
        number += 1
        first = upload.folder / upload.filename
        path = first.with_name(f"{first.stem} ({number}){first.suffix}")
    return path, False


def _digest(file: IO[bytes]) -> bytes:
    whole = hashlib.sha256()
    while block := file.read(BLOCK):
        whole.update(block)
    return whole.digest()
