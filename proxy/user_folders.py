"""Where each user's files are, for jobs: the same directories a session of theirs has, whether it runs or not."""

import asyncio
import hashlib
import hmac
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sqlmodel import select

from backend_pool.files.owner import Owner
from backend_pool.files.user_files import UserDirs
from proxy.access.accounts import User
from proxy.base.database import Database
from proxy.base.errors import NotFound
from user_sessions.directories import Directories, prepare_user, public_directory


class UserFolders:
    """Directories by slug, and owners of jobs by user id."""

    def __init__(self, data_dir: Path, db: Database, key: bytes) -> None:
        self._data_dir = data_dir
        self._db = db
        self._key = key
        self._made: dict[str, UserDirs] = {}
        self._slugs: dict[int, str] = {}

    def prepared(self, slug: str) -> UserDirs:
        """The user's directories, made if need be. Blocking; raises DiskFull or Unavailable."""
        dirs = self._made.get(slug)
        if dirs is None or not dirs.output.is_dir():
            dirs = self._made[slug] = self._of(prepare_user(self._data_dir, slug))
        return dirs

    async def owner(self, user_id: int, secrets: Mapping[str, Any]) -> Owner:
        """What a runner needs to know. The tag is a keyed hash: other users cannot name this user's folder."""
        slug = self._slugs.get(user_id)
        if slug is None:
            slug = await self._db.read(lambda s: s.exec(select(User.slug).where(User.id == user_id)).first())
            if slug is None:
                raise NotFound(f"There is no user {user_id}.")
            self._slugs[user_id] = slug
        tag = hmac.new(self._key, f"backend folder {user_id}".encode(), hashlib.sha256).hexdigest()[:20]
        return Owner(await asyncio.to_thread(self.prepared, slug), tag, secrets)

    def _of(self, dirs: Directories) -> UserDirs:
        return UserDirs(dirs.input, dirs.output, dirs.temp, public_directory(self._data_dir) / "input")
