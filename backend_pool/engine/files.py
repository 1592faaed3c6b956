"""The engine's directories and names in them: annotated names, containment, counters of saved files. Blocking.

A worker pack switches input, output and temp to those of the job that is on, as it does in ComfyUI.
"""

import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

Kind = Literal["input", "output", "temp"]
KINDS: tuple[str, ...] = get_args(Kind)
TOKENS = {"year": "%Y", "month": "%m", "day": "%d", "hour": "%H", "minute": "%M", "second": "%S"}


@dataclass(frozen=True)
class SaveTarget:
    """Where the next file of a prefix goes: `folder / f"{name}_{counter:05}_.png"`."""

    folder: Path
    name: str
    counter: int
    subfolder: str


class OutsideDirectory(ValueError):
    """The name leads out of its directory."""


class Directories:
    """input, output, temp and models below one base directory; temp is emptied at the start, as by ComfyUI."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.models = base / "models"
        shutil.rmtree(base / "temp", ignore_errors=True)
        for name in (*KINDS, "models"):
            (base / name).mkdir(parents=True, exist_ok=True)
        self._own = {kind: base / kind for kind in KINDS}
        self._now: Mapping[str, Path] = self._own

    def switch(self, roots: Mapping[str, Path] | None) -> None:
        """From now on input, output and temp are these; None: the engine's own again."""
        self._now = self._own if roots is None else roots

    def root(self, kind: str) -> Path:
        """The directory of a kind that is known to be one."""
        return self._now[kind]

    def of(self, kind: str) -> Path | None:
        """The directory of `input`, `output` or `temp`; None for anything else."""
        return self._now.get(kind)

    def find(self, name: str) -> Path | None:
        """The existing file of an annotated name such as `x.png [output]`; input by default. None outside or absent."""
        bare, kind = annotated(name)
        folder = self.root(kind or "input")
        try:
            path = inside(folder, bare)
            return path if path.is_file() else None
        except (OutsideDirectory, OSError, ValueError):  # too long, a null byte
            return None

    def listing(self, kind: Kind) -> list[str]:
        """Names of the files directly in a directory, sorted."""
        return sorted(entry.name for entry in self.root(kind).iterdir() if entry.is_file())

    def save_target(self, prefix: str, kind: Kind, width: int, height: int) -> SaveTarget:
        """Expand `%date%` tokens of ComfyUI 0.8.0 and find the next counter. Raises OutsideDirectory."""
        now = time.localtime()
        for token, code in TOKENS.items():
            prefix = prefix.replace(f"%{token}%", time.strftime(code, now))
        prefix = prefix.replace("%width%", str(width)).replace("%height%", str(height))
        root = self.root(kind)
        whole = inside(root, prefix)
        # An emptied prefix makes `._00001_.png` in ComfyUI too.
        folder, name = (whole, ".") if whole == root.resolve() else (whole.parent, whole.name)
        folder.mkdir(parents=True, exist_ok=True)
        counter = 1 + max((_counter(entry.name, name) for entry in folder.iterdir()), default=0)
        subfolder = folder.relative_to(root.resolve()).as_posix()
        return SaveTarget(folder, name, counter, "" if subfolder == "." else subfolder)


def annotated(name: str) -> tuple[str, str | None]:
    """Split `x.png [output]` into name and directory kind."""
    for kind in KINDS:
        if name.endswith(f"[{kind}]"):
            return name[: -len(kind) - 3], kind
    return name, None


def inside(folder: Path, name: str) -> Path:
    """`folder / name`, links resolved; raises OutsideDirectory when that leads out of the folder."""
    root = folder.resolve()
    path = (root / name).resolve()
    if path != root and root not in path.parents:
        raise OutsideDirectory(f"The name {name!r} leads outside of the {folder.name} directory.")
    return path


def _counter(file: str, prefix: str) -> int:
    head, rest = file[: len(prefix)], file[len(prefix) + 1 :]
    if head.lower() != prefix.lower() or file[len(prefix) : len(prefix) + 1] != "_":
        return 0
    digits = rest.split("_")[0]
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 18 else 0
