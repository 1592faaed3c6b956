"""The command line ComfyUI believes it was started with: on the CPU, nothing opened, directories as given.

Pure. Flags that only some versions know are given where the text of that version's `comfy/cli_args.py` has them.
"""

from dataclasses import dataclass
from pathlib import Path

from user_sessions.comfyui.options import Options
from user_sessions.directories import Directories

WHERE_KNOWN = ("--disable-assets",)
"""The database of assets is locked by one process, and what it would register happens on backends."""


@dataclass(frozen=True)
class Places:
    """Directories to be given on the command line."""

    directories: Directories
    temp_parent: Path
    """ComfyUI itself appends `temp`."""


def scratch_places(scratch: Path) -> Places:
    """What stands for a user's directories before the fork."""
    names = (scratch / name for name in ("input", "output", "temp", "user"))
    return Places(Directories(*names), scratch)


def user_places(directories: Directories) -> Places:
    """A user's own, for a process that imports everything for this one session."""
    return Places(directories, directories.temp.parent)


def command_line(options: Options, places: Places, known: str, *, debug: bool = False) -> list[str]:
    """`sys.argv`; `known` is the text that names the flags of this version."""
    directories = places.directories
    line = [
        "main.py",
        "--cpu",
        "--disable-auto-launch",
        *("--input-directory", str(directories.input)),
        *("--output-directory", str(directories.output)),
        *("--temp-directory", str(places.temp_parent)),
        *("--user-directory", str(directories.user)),
        *("--verbose", "DEBUG" if debug else "INFO"),
    ]
    if '"--database-url"' in known:
        line += ["--database-url", database_url(directories.user)]
    line += [flag for flag in WHERE_KNOWN if f'"{flag}"' in known]
    return line + list(options.arguments)


def database_url(user: Path) -> str:
    """A database of this user alone."""
    return f"sqlite:///{user}/comfyui.db"
