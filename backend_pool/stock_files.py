"""Files of a job on a ComfyUI without the worker pack: the prompt is rewritten, files go by its public API.

Puts staging, translator and collector behind the runner's seam.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from backend_pool.collector import Collector
from backend_pool.comfy_client import FileRef
from backend_pool.frames import Message
from backend_pool.job_files import JobFiles
from backend_pool.known_files import KnownFiles
from backend_pool.model import Job, JobDocument, JsonDict
from backend_pool.owner import Owner
from backend_pool.pool import Member
from backend_pool.staging import Staged, stage
from backend_pool.translator import Translator


class StockFiles(JobFiles):
    """One attempt on a stock backend or an embedded engine."""

    def __init__(
        self,
        job: Job,
        document: JobDocument,
        *,
        member: Member,
        owner: Owner,
        known: KnownFiles,
        note: Callable[[list[JsonDict]], Awaitable[None]],
    ) -> None:
        assert job.upstream_id
        self._job = job
        self._upstream_id = job.upstream_id
        self._document = document
        self._member = member
        self._owner = owner
        self._known = known
        self._note = note
        self._adopt(Staged(document.prompt))

    @property
    def files(self) -> list[JsonDict]:
        """What has come home."""
        return self._collector.files

    @files.setter
    def files(self, files: list[JsonDict]) -> None:
        self._collector.files = files

    def _adopt(self, staged: Staged) -> None:
        self._staged = staged
        self._translator = Translator(self._upstream_id, self._job.prompt_id, staged)
        self._collector = Collector(
            self._job,
            client=self._member.client,
            note=self._note,
            dirs=self._owner.dirs,
            tag=self._owner.tag,
            prompt=self._document.prompt,
            own=staged.own,
            known=self._known,
        )
        self._collector.files = list(self._document.files)

    async def prepare(self) -> None:
        """Rewrite the prompt."""
        owner, salt = self._owner, f"{self._owner.tag}-{self._known.epoch}"
        self._adopt(
            await asyncio.to_thread(stage, self._document.prompt, self._member.info, owner.dirs, owner.tag, salt)
        )

    async def send(self) -> None:
        """Upload what the backend does not have."""
        client, folder = self._member.client, self._staged.folder
        for name, path in self._staged.files.items():
            size = (await asyncio.to_thread(path.stat)).st_size
            if not await client.has(FileRef(name, folder, "input"), size):
                await client.upload(path, name, folder)

    async def submit(self, order: JsonDict) -> JsonDict:
        """POST /prompt."""
        return await self._member.client.submit({"prompt": self._staged.prompt, **order})

    def began(self, at_ms: Any) -> None:
        """What the job makes is not older."""
        self._collector.claims.began_ms = at_ms or self._collector.claims.began_ms

    def text(self, frame: str) -> Message | None:
        """Ids and names mapped back."""
        return self._translator.text(frame)

    def binary(self, frame: bytes) -> bytes | None:
        """The prompt id mapped back."""
        return self._translator.binary(frame)

    def document(self, value: Any) -> Any:
        """The prompt id mapped back."""
        return self._translator.document(value)

    def restored(self, value: Any) -> Any:
        """Names mapped back."""
        return self._translator.restored(value)

    async def missing(self, outputs: Iterable[Any]) -> bool:
        """Whether one of these outputs is not at home."""
        return not all(self._collector.is_home(ui) for ui in outputs)

    def is_home(self, ui: Any) -> bool:
        """Whether this output is."""
        return self._collector.is_home(ui)

    async def localize(self, ui: Any) -> Any:
        """Fetch, then name as the user does."""
        return self._translator.restored(await self._collector.localize(ui))

    async def bring_rest(self) -> None:
        """Nothing: a stock backend tells of no other files."""

    def discard(self, outputs: JsonDict) -> None:
        """Remove files of this job that are not shown."""
        self._collector.discard(outputs)

    async def forget(self) -> None:
        """Remove the history entry; the files stay, ComfyUI has no route that deletes one."""
        await self._member.client.post("/history", {"delete": [self._upstream_id]})
