"""Files of a job on a ComfyUI without the worker pack: the prompt is rewritten, files go by its public API.

Puts staging, translator and collector behind the runner's seam.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

from backend_pool.backends.member import Member
from backend_pool.comfy.client import FileRef
from backend_pool.comfy.frames import Message
from backend_pool.comfy.result import result_of
from backend_pool.errors import BackendRefused
from backend_pool.files.collector import Collector
from backend_pool.files.known_files import KnownFiles
from backend_pool.files.moved_note import LONGEST, Moved, note_of
from backend_pool.files.owner import Owner
from backend_pool.files.staging import Staged, Unstageable, stage
from backend_pool.files.transfer import side_by_side
from backend_pool.files.user_files import version_of
from backend_pool.model import Job, JobDocument, JsonDict
from backend_pool.runs.job_files import JobFiles
from backend_pool.runs.translator import Translator
from proxy.base.user_file_open import opened

AT_ONCE = 4
"""Files of one job that are sent at the same time."""


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
        keep_inputs_mb: int | None,
    ) -> None:
        assert job.upstream_id
        self._job = job
        self._upstream_id = job.upstream_id
        self._document = document
        self._member = member
        self._owner = owner
        self._known = known
        self._note = note
        self._keep_inputs_mb = keep_inputs_mb
        """What inputs may hold at the backend; None leaves everything there."""
        self._trusted = False
        """Whether some input was not asked about because the backend had it a moment ago."""
        self._adopt(Staged(document.prompt))

    @property
    def files(self) -> list[JsonDict]:
        """What has come home."""
        return self._collector.noted.entries

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
            staged=staged,
            known=self._known,
            files=self._document.files,
        )

    async def prepare(self) -> None:
        """Rewrite the prompt."""
        owner, salt = self._owner, f"{self._owner.tag}-{self._known.epoch}"
        prompt, info = self._document.prompt, self._member.info
        again = self._upstream_id if self._job.attempt > 1 else ""
        more: Any = {"targets": self._document.targets or (), "again": again}
        self._adopt(await asyncio.to_thread(stage, prompt, info, owner.dirs, owner.tag, salt, **more))

    async def send(self) -> None:
        """Upload what the backend does not have."""
        self._trusted = False
        await side_by_side([partial(self._send, name) for name in self._staged.files], AT_ONCE)

    async def _send(self, name: str) -> None:
        client, path, version = self._member.client, self._staged.files[name], self._staged.versions[name]
        ref = FileRef(name, self._staged.subfolder(name), "input")
        sent = self._known.sent_to(client)
        if sent.holds(ref):
            self._trusted = True
            return
        if not await client.has(ref, version[0]):
            async with opened(await asyncio.to_thread(self._owner.dirs.root_of, path), path) as content:
                await client.upload(content, name, ref.subfolder)
            if not await self._is_still(path, version):
                await client.overwrite(ref, b"")  # else it would pass for what its name says
                theirs = self._staged.own[name].filename
                raise Unstageable(self._node_with(name), f"The file {theirs} changed while it was sent. Run it again.")
        sent.note(ref, version[0])

    async def _is_still(self, path: Path, version: tuple[int, int]) -> bool:
        try:
            async with opened(await asyncio.to_thread(self._owner.dirs.root_of, path), path) as content:
                return version_of(content) == version
        except OSError:  # gone, or something else has its name
            return False

    def _node_with(self, name: str) -> str:
        nodes = self._staged.prompt.items()
        return next(node_id for node_id, node in nodes if name in json.dumps(node["inputs"]))

    async def submit(self, order: JsonDict) -> JsonDict:
        """POST /prompt. When it is refused, files that were only believed to be there are looked for, once."""
        body = {"prompt": self._staged.prompt, **order}
        try:
            return await self._member.client.submit(body)
        except BackendRefused:
            if not self._trusted:
                raise
        self._known.sent_to(self._member.client).doubt()
        await self.send()
        return await self._member.client.submit(body)

    def began(self, at_ms: Any) -> None:
        """What the job makes is not older."""
        self._collector.claims.began_ms = at_ms or self._collector.claims.began_ms

    def text(self, frame: str) -> Message | None:
        """Ids and names mapped back."""
        message = self._translator.text(frame)
        if message is not None:
            self._collector.claims.hear(message.type, message.data)
        return message

    def binary(self, frame: bytes) -> bytes | None:
        """The prompt id mapped back."""
        return self._translator.binary(frame)

    def document(self, value: Any) -> Any:
        """The prompt id mapped back."""
        found = self._translator.document(value)
        for message in result_of(found, self._job.prompt_id).messages:
            self._collector.claims.hear(*message)
        return found

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

    def ended(self) -> None:
        """What came home stays."""
        self._collector.ended()

    async def forget(self) -> None:
        """Remove the history entry, put notes in the place of outputs that are at home, bound the inputs.

        A backend that does not know the job was started anew: what a name means there now may be another job's file.
        """
        client, remains = self._member.client, self._member.client.remains
        known = await client.history(self._upstream_id) is not None
        if known:
            await client.post("/history", {"delete": [self._upstream_id]})
            brought = [version for _, _, version in self._collector.noted.fresh()]
            remains.whole += len(brought)
            remains.whole_bytes += sum(version[0] for version in brought if version is not None)
        if self._keep_inputs_mb is None:
            return
        if known:
            await side_by_side([partial(self._sweep, *pair) for pair in self._collector.at_home()], AT_ONCE)
        await self._known.sent_to(client).shrink(self._keep_inputs_mb * 1024 * 1024)

    async def _sweep(self, source: FileRef, moved: Moved) -> None:
        note, remains = note_of(moved), self._member.client.remains
        if len(note) <= LONGEST:
            await self._member.client.overwrite(source, note)
            remains.notes += 1
            remains.whole -= 1
            remains.whole_bytes -= moved.version[0]
