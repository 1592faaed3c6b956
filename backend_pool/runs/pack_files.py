"""Files of a job on a backend with the worker pack: the prompt goes as it is, and all that the job wrote comes home.

Where the worker has the user's directories on shared storage nothing travels. Else the files that the prompt names are
sent by content, and what was written, told of or not, is fetched: before `executed` what that names, then the rest.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

from backend_pool.backends.member import Member
from backend_pool.comfy.client import CHUNK, FileRef
from backend_pool.comfy.frames import Message
from backend_pool.errors import BackendBroken, FileGone
from backend_pool.files.incoming import clear_incoming, close, create_incoming, write
from backend_pool.files.noted_files import NotedFiles
from backend_pool.files.own_paths import OwnPaths
from backend_pool.files.owner import Owner
from backend_pool.files.pack_inputs import Input, name_stubs, named_inputs
from backend_pool.files.pack_landing import Lander, Written, written
from backend_pool.files.references import references, replaced
from backend_pool.files.staging import Staged
from backend_pool.files.transfer import to_its_end
from backend_pool.files.user_files import ATTEMPTS, FOLDERS, version_at
from backend_pool.model import Job, JobDocument, JsonDict
from backend_pool.prompts.spelling import respelled
from backend_pool.runs.job_files import JobFiles
from backend_pool.runs.translator import Translator
from backend_pool.workers.client import NotShared, Unsent, WorkerClient
from proxy.base.clock import monotonic_s
from proxy.base.logs import events
from proxy.base.user_file_open import opened

log = events(__name__)

SEEN_WITHIN_S = 5.0
"""How long a file on shared storage may take to be seen here: network file systems remember that it was not there."""
LOOK_EVERY_S = 0.05
SEND_TRIES = 3


class PackFiles(JobFiles):
    """One attempt on a worker."""

    def __init__(
        self,
        job: Job,
        document: JobDocument,
        *,
        member: Member,
        owner: Owner,
        note: Callable[[list[JsonDict]], Awaitable[None]],
        users_dir: Path,
    ) -> None:
        assert job.upstream_id
        self._key = f"{job.key}-"
        self._id = job.upstream_id
        self._prompt = respelled(document.prompt, member.info)
        self._worker = WorkerClient(member.client)
        self._owner = owner
        self._write_notes = note
        self._hashes = member.hashes
        self._lander = Lander(owner.dirs)
        self._translator = Translator(job.upstream_id, job.prompt_id, Staged(document.prompt))
        self._folder = _folder(owner.dirs.output, users_dir) if member.shared else None
        """The user's folder on shared storage, None where it is not used."""
        self._paths = OwnPaths([owner.tag, owner.dirs.output.parent.name])
        self._inputs: list[Input] = []
        self._stubs: list[JsonDict] = []
        self._listed: list[Written] = []
        self._noted = NotedFiles(owner.dirs, document.files)

    @property
    def files(self) -> list[JsonDict]:
        """What has come home."""
        return self._noted.entries

    # -- the way there ---------------------------------------------------------------------------------------------

    async def prepare(self) -> None:
        """Find out what to send."""
        dirs = self._owner.dirs
        self._inputs = await asyncio.to_thread(named_inputs, self._prompt, dirs, self._hashes)
        if any(file.shared for file in self._inputs):
            self._folder = None  # everybody's files are not in the user's directory
        if self._folder is None:
            self._stubs = await asyncio.to_thread(name_stubs, dirs, {file.path for file in self._inputs})

    async def send(self) -> None:
        """Send the files that the worker does not have."""
        if self._folder is None and self._inputs:
            await self._send(await self._worker.missing([file.sha256 for file in self._inputs]))

    async def _send(self, hashes: Iterable[str]) -> None:
        sources = {file.sha256: file.source for file in self._inputs}
        for name in hashes:
            if name in sources:
                source = sources[name]
                async with opened(await asyncio.to_thread(self._owner.dirs.root_of, source), source) as content:
                    await self._worker.send(name, content)

    async def submit(self, order: JsonDict) -> JsonDict:
        """Have the worker switch to the user's directories, validate and queue."""
        for _ in range(SEND_TRIES):
            body = {"user": self._owner.tag, "storage": self._storage(), "order": {"prompt": self._prompt, **order}}
            try:
                return await self._worker.submit(body)
            except Unsent as error:
                await self._send(error.hashes)
            except NotShared as error:
                log.warning("shared storage is not there, sending files", error=str(error))
                self._folder = None
                await self.prepare()
        raise BackendBroken("the worker forgets input files as fast as they are sent")

    def _storage(self) -> JsonDict:
        if self._folder is not None:
            return {"folder": self._folder}
        inputs = [{"path": file.path, "sha256": file.sha256, "mtime_ns": file.mtime_ns} for file in self._inputs]
        return {"inputs": inputs, "stubs": self._stubs}

    # -- what the backend says -------------------------------------------------------------------------------------

    def began(self, at_ms: Any) -> None:
        """Of no use here: all that lies in the job's directories is the user's."""

    def text(self, frame: str) -> Message | None:
        """The prompt id mapped back; names are the user's own, but an error may hold paths."""
        message = self._translator.text(frame)
        if message is None or message.type != "execution_error":
            return message
        return Message(message.type, self.restored(message.data))

    def binary(self, frame: bytes) -> bytes | None:
        """The prompt id mapped back."""
        return self._translator.binary(frame)

    def document(self, value: Any) -> Any:
        """The prompt id mapped back."""
        return self._translator.document(value)

    def restored(self, value: Any) -> Any:
        """Without paths of the worker to what is the user's."""
        return self._paths.removed(value)

    # -- the way home ----------------------------------------------------------------------------------------------

    async def missing(self, outputs: Iterable[Any]) -> bool:
        """Whether the worker has a file of the job that is not at home."""
        await self._look()
        return any(not self._has(file) for file in self._listed)

    def is_home(self, ui: Any) -> bool:
        """Whether all that the output names is."""
        return all(self._has(file) for file in self._named(ui))

    async def localize(self, ui: Any) -> Any:
        """Bring what the output names; its names change only where the user has another file of one by now."""
        await self._look()
        await self._bring(self._named(ui))
        refs = list(references(ui))
        if self._folder is not None:
            await self._seen(refs)
        noted = self._noted.homes
        return replaced(ui, {ref: noted[ref] for ref in refs if ref in noted})

    async def bring_rest(self) -> None:
        """Bring all that the job wrote."""
        await self._look()
        await self._bring(self._listed)

    def discard(self, outputs: JsonDict) -> None:
        """Remove new files of this job that are not shown, and partial ones."""
        words = _words(outputs)
        self._noted.discard({local for local in self._noted.homes.values() if _word(local) in words})
        self._clear()

    def ended(self) -> None:
        """What came home stays: no other job shows it before."""

    async def forget(self) -> None:
        """Remove the job's history entry and directories there."""
        await self._worker.forget(self._id)

    async def _look(self) -> None:
        """What there is to fetch now: on shared storage what went astray. A file may be listed while it is written."""
        self._listed = [written(entry) for entry in await self._worker.files(self._id)]

    def _named(self, ui: Any) -> list[Written]:
        """Files whose names stand in the output, in whatever form."""
        words = _words(ui)
        return [file for file in self._listed if _word(file.ref) in words]

    def _has(self, file: Written) -> bool:
        """Whether this very version is at home."""
        return self._noted.has(file.ref, (file.size, file.mtime_ns))

    async def _bring(self, files: list[Written]) -> None:
        try:
            for file in files:
                if not self._has(file):
                    await self._fetch(file)
        finally:
            await to_its_end(self._clear)

    async def _fetch(self, file: Written) -> None:
        arrived = await self._save(file)
        for _ in range(ATTEMPTS):
            local, replaces = await asyncio.to_thread(self._place, file, arrived)
            if local.type != "temp":
                await self._write_notes(self.files)
            if await to_its_end(partial(self._lander.land, arrived, local, replace=replaces)):
                self._noted.landed(file.ref)
                return
            self._noted.drop(file.ref)
        raise FileGone(f"There is no free name left for {file.ref.filename}; tidy the folder")

    def _place(self, file: Written, arrived: Path) -> tuple[FileRef, bool]:
        """Choose and note where it goes; and whether it replaces what is there. Blocking."""
        own = self._noted.own_place(file.ref)
        local = self._lander.choose(file, own)
        known = file.known and local == file.ref
        if known:
            self._lander.complete(arrived, file)
        of = (file.size, file.mtime_ns)
        self._noted.put(file.ref, local, version_at(arrived), fresh=not known, of=of)
        return local, known or own is not None

    async def _save(self, file: Written) -> Path:
        root, size = self._owner.dirs.root(file.ref.type), 0
        async with self._worker.file(self._id, file.path, file.begin, file.stray) as response:
            path, out = await asyncio.to_thread(create_incoming, root, f"{self._key}0")
            try:
                async for chunk in response.content.iter_chunked(CHUNK):
                    size += len(chunk)
                    await asyncio.to_thread(write, out, chunk)
            finally:
                await to_its_end(partial(close, out))
        if size != file.size - file.begin:
            raise FileGone(f"{file.ref.filename} arrived incomplete")
        return path

    def _clear(self) -> None:
        for kind in FOLDERS:
            clear_incoming(self._owner.dirs.root(kind), self._key)

    async def _seen(self, refs: list[FileRef]) -> None:
        """Wait until files that the job has just written can be seen here; one that the user deleted never will be."""
        deadline = monotonic_s() + SEEN_WITHIN_S
        for ref in refs:
            path = self._lander.path(ref)
            while ref.type != "input" and not path.is_file() and monotonic_s() < deadline:  # noqa: ASYNC110 - no event
                await asyncio.sleep(LOOK_EVERY_S)


def _words(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _word(ref: FileRef) -> str:
    """A file's name as it stands there."""
    return _words(ref.filename)[1:-1]


def _folder(output: Path, users_dir: Path) -> str | None:
    home = output.parent
    return home.name if home.parent.absolute() == users_dir.absolute() else None
