"""A worker behind a line on which the files of an ended job can be held back while others run."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backend_pool.backends.member import Member
from tests.backend_pool.graphs import saved
from tests.backend_pool.rig import Rig
from tests.engines import Engine
from tests.worker_pack.cluster import Begin, Hub, hub
from tests.worker_pack.link import Link, linked

PATIENT = {"transfer_timeout_s": 60.0, "upstream_timeout_s": 60.0}


@dataclass
class Scene:
    """A worker behind a line."""

    hub: Hub
    link: Link
    engine: Engine
    member: Member
    word: str
    """What is asked for on the way home of a job's files."""

    @property
    def rig(self) -> Rig:
        return self.hub.rig

    async def travelling(self, user: int) -> str:
        """A job of that user's that the worker has ended, and whose files are on their way until `let_go`."""
        self.link.hold(self.word)
        prompt_id = await self.rig.submit(saved(), user)
        await self.link.caught()
        return prompt_id

    async def key(self, prompt_id: str, user: int) -> int:
        """The job's number."""
        return (await self.rig.entry(prompt_id, user))[0].key

    def homes(self) -> list[str]:
        """The directories of jobs at the worker."""
        scratch = self.engine.base_dir / "worker-pack" / "scratch"
        return sorted(path.name for path in scratch.glob("*/*") if path.is_dir())


@asynccontextmanager
async def scene(root: Path, begin: Begin, storage: str = "sent", **settings: Any) -> AsyncIterator[Scene]:
    """One worker, idle."""
    async with linked() as link, hub(root, **PATIENT, **settings) as h:
        for user in range(1, 20):
            h.rig.dirs(user)
        shared = {"shared_data": str(root / "users")} if storage == "shared" else {}
        engine = begin(h.config(root / "one.json", advertise=link.url, **shared), "--step-ms", "20")
        link.to(engine.url)
        member = await h.member(holds=lambda m: m.shared == (storage == "shared"))
        yield Scene(h, link, engine, member, "/files" if storage == "shared" else "/file?")
        await h.rig.eventually(lambda: not any((engine.base_dir / "worker-pack" / "scratch").glob("*/*")))
