"""Whose job it is, as far as those who carry it need to know."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from backend_pool.files.user_files import UserDirs


@dataclass(frozen=True)
class Owner:
    """The job's user. `tag` is the unguessable part of their folder at backends."""

    dirs: UserDirs
    tag: str
    secrets: Mapping[str, Any] = field(default_factory=dict)
    """extra_data that is never stored: API tokens of paid nodes."""
