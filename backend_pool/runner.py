"""Carries one job through one backend: stage, submit, relay, collect, conclude (DESIGN D6).

The backend's `/history` is the truth and the event socket a convenience: silence, a dropped socket or a restart of this
proxy all lead to looking there.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from aiohttp import ClientWebSocketResponse, WSMsgType

from backend_pool.collector import Collector, KnownFiles, discard
from backend_pool.comfy_client import Whereabouts
from backend_pool.errors import BackendBroken, BackendError, BackendGone, BackendRefused, FileGone
from backend_pool.frames import Message
from backend_pool.job_record import JobRecord
from backend_pool.job_state import JobState
from backend_pool.job_store import Fenced, JobStore, Result
from backend_pool.listener import JobListener
from backend_pool.model import Job, JobDocument, JsonDict
from backend_pool.pool import Member
from backend_pool.staging import INPUT_FOLDER, Staged, UnsafePrefix, stage
from backend_pool.translator import Translator
from backend_pool.user_files import UserDirs
from backend_pool.verdicts import as_history, failed, interrupted, refusal
from proxy.base.errors import CallerError, DiskFull
from proxy.base.logs import events
from proxy.base.settings import Settings

log = events(__name__)
T = TypeVar("T")

RETRY_S = 0.5
SUBMIT_TRIES = 3
TERMINAL = frozenset({"execution_success", "execution_error", "execution_interrupted"})


class Lost(Exception):
    """The backend no longer has the job, or is gone itself: it may run elsewhere."""


@dataclass(frozen=True)
class Owner:
    """What a runner needs to know of the job's user. `tag` is the unguessable part of their folder at backends."""

    dirs: UserDirs
    tag: str
    secrets: Mapping[str, Any] = field(default_factory=dict)
    """extra_data that is never stored: API tokens of paid nodes."""


class Runner:
    """One attempt. Cancelling the task of `run` leaves the row as it is, for recovery."""

    def __init__(
        self,
        job: Job,
        document: JobDocument,
        *,
        member: Member,
        owner: Owner,
        store: JobStore,
        listener: JobListener,
        known: KnownFiles,
        settings: Settings,
    ) -> None:
        assert job.upstream_id and job.upstream_client
        self._upstream_id, self._client_id = job.upstream_id, job.upstream_client
        self._record = JobRecord(job, store, listener)
        self._prompt_id = job.prompt_id
        self._document = document
        self._member = member
        self._client = member.client
        self._owner = owner
        self._settings = settings
        self._staged = Staged(document.prompt)
        self._translator = Translator(self._upstream_id, job.prompt_id, self._staged)
        self._collector = Collector(
            job, client=member.client, store=store, dirs=owner.dirs, tag=owner.tag, prompt=document.prompt, known=known
        )
        self._collector.files = list(document.files)
        self._cancel = asyncio.Event()
        self._submitted = self._unsure = False
        self._tries = 0
        self._last_words: Message | None = None
        if job.cancel_requested:
            self._cancel.set()

    def cancel(self) -> None:
        """The user wants it to end; takes effect wherever the job is."""
        self._cancel.set()

    async def run(self, *, resume: bool = False) -> JobState:
        """Carry the job to a final state or back into the queue, and return it; a job's failure is not raised."""
        try:
            await self._carry(resume)
        except Fenced:
            log.warning("job was taken from its runner", job=self._prompt_id)
        except (Lost, BackendGone) as error:
            await self._give_back(str(error))
        except BackendRefused as error:
            await self._fail(refusal(self._prompt_id, self._document.prompt, error))
        except UnsafePrefix as error:
            node = (error.node_id, str(self._document.prompt[error.node_id].get("class_type")))
            await self._fail(failed(self._prompt_id, "ValueError", str(error), node))
        except (DiskFull, CallerError) as error:
            await self._fail(failed(self._prompt_id, type(error).__name__, error.message))
        except FileGone as error:
            await self._fail(failed(self._prompt_id, "FileGone", f"{error}. Run the job again."))
        except OSError as error:
            await self._fail(failed(self._prompt_id, type(error).__name__, f"A file could not be read: {error}"))
        return self._record.job.state

    # -- the way through -------------------------------------------------------------------------------------------

    async def _carry(self, resume: bool) -> None:
        self._staged = await asyncio.to_thread(
            stage, self._document.prompt, self._member.info, self._owner.dirs, self._owner.tag
        )
        self._translator = Translator(self._upstream_id, self._prompt_id, self._staged)
        if self._record.job.state is JobState.COLLECTING:
            document = self._document
            await self._conclude(Result(document.outputs, document.meta, document.messages))
            return
        if resume:
            self._submitted = True
            if await self._patiently(self._where) == "absent":
                raise Lost("the backend does not know the job any more")
        if self._cancel.is_set() and not self._submitted:
            await self._end_cancelled()
            return
        await self._beside(self._follow())
        entry = await self._patiently(lambda: self._client.history(self._upstream_id))
        if entry is None:
            raise Lost("the backend's history does not have the job")
        document = self._translator.document(entry)
        status = document.get("status") or {}
        result = Result(document.get("outputs") or {}, document.get("meta") or {}, status.get("messages") or [])
        await self._record.collecting(result)
        await self._conclude(result)

    async def _beside(self, way: Awaitable[T]) -> T:
        """Go the way while watching for the user's cancel and the backend's death."""
        try:
            async with asyncio.TaskGroup() as group:
                beside = [
                    group.create_task(self._interrupt_when_cancelled(), name=f"cancel {self._prompt_id}"),
                    group.create_task(self._raise_when_gone(), name=f"loss {self._prompt_id}"),
                ]
                result = await way
                for task in beside:
                    task.cancel()
            return result
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None

    async def _follow(self) -> None:
        """Submit if that is still to do, then relay events until the backend has the prompt in its history."""
        while True:
            try:
                async with self._client.events(self._client_id) as socket:
                    if not self._submitted:
                        await self._submit()
                    if await self._pump(socket):
                        return
            except BackendGone as error:
                log.info("backend connection lost", job=self._prompt_id, backend=self._member.row.name, error=error)
                self._tries += 1
                if not self._submitted and not self._unsure and self._tries >= SUBMIT_TRIES:
                    raise Lost(f"the backend does not take jobs: {error}") from error
            await asyncio.sleep(RETRY_S)
            if self._submitted:
                with contextlib.suppress(BackendGone):
                    if await self._ended():
                        return

    async def _submit(self) -> None:
        for name, path in self._staged.files.items():
            await self._client.upload(path, name, INPUT_FOLDER)
        if self._unsure and await self._where() != "absent":
            self._submitted = True
            return
        self._unsure = True  # an answer that never comes may follow a prompt that was taken
        answer = await self._submitted_answer(
            {
                "prompt": self._staged.prompt,
                "prompt_id": self._upstream_id,
                "client_id": self._client_id,
                "extra_data": {**self._document.extra_data, **self._owner.secrets},
                "partial_execution_targets": self._document.targets,
            }
        )
        if answer.get("prompt_id") != self._upstream_id:
            raise BackendRefused("This backend's ComfyUI ignores prompt ids. Update it to 0.3.64 or newer.", answer)
        self._submitted = True

    async def _submitted_answer(self, body: JsonDict) -> JsonDict:
        try:
            return await self._client.submit(body)
        except BackendBroken:
            self._unsure = False  # it answered, and not with a prompt id
            raise

    async def _pump(self, socket: ClientWebSocketResponse) -> bool:
        """Relay frames; True when the prompt has ended, False when the socket did."""
        while True:
            try:
                frame = await socket.receive(timeout=self._settings.job_poll_s)
            except TimeoutError:
                if await self._ended():
                    return True
                continue
            if frame.type is WSMsgType.TEXT:
                if await self._hear(frame.data):
                    return True
            elif frame.type is WSMsgType.BINARY:
                translated = self._translator.binary(frame.data)
                if translated is not None:
                    self._record.tell(translated)
            else:
                return False

    async def _hear(self, text: str) -> bool:
        """Act on one JSON frame; True for the end marker."""
        message = self._translator.text(text)
        if message is None:
            return False
        if message.type == "executing" and message.data.get("node") is None:
            return "prompt_id" in message.data
        if message.type in TERMINAL and "timestamp" in message.data:
            self._last_words = message  # told once the result is stored; a blocked node's error has no timestamp
            return False
        if message.type == "execution_start":
            await self._record.running()
        if message.type == "executed":
            output = await self._collector.localize(message.data.get("output"))
            message = Message("executed", self._translator.restored({**message.data, "output": output}))
        self._record.tell(message)
        return False

    async def _where(self) -> Whereabouts:
        return await self._client.whereabouts(self._upstream_id)

    async def _ended(self) -> bool:
        """Whether the backend has finished the prompt; raises Lost when it does not know it."""
        where = await self._where()
        if where == "absent":
            raise Lost("the backend lost the job, probably by a restart")
        if where == "running":
            await self._record.running()
        return where == "history"

    # -- the end ---------------------------------------------------------------------------------------------------

    async def _conclude(self, result: Result) -> None:
        """Bring home what is missing, store the end, tell, tidy up."""
        outputs = self._translator.restored(await self._beside(self._collect(result.outputs)))
        messages = self._translator.restored(result.messages)
        kinds = {message[0] for message in messages}
        state = JobState.SUCCEEDED
        if "execution_interrupted" in kinds:
            state = JobState.CANCELLED
        elif "execution_error" in kinds:
            state = JobState.FAILED
        last = self._last_words or next((Message(m[0], m[1]) for m in reversed(messages) if m[0] in TERMINAL), None)
        final = Result(outputs, self._translator.restored(result.meta), messages)
        await self._record.finish(state, final, "ended at the backend", last)
        with contextlib.suppress(BackendError):
            await self._client.post("/history", {"delete": [self._upstream_id]})

    async def _collect(self, outputs: JsonDict) -> JsonDict:
        """Every file of the outputs. A broken transfer is repeated; a file that is really missing fails the job."""
        for left in reversed(range(self._settings.job_attempts)):
            try:
                return {node: await self._collector.localize(ui) for node, ui in outputs.items()}
            except (FileGone, BackendGone) as error:
                log.warning("file not fetched", job=self._prompt_id, backend=self._member.row.name, error=error)
                if left == 0:
                    raise
            await self._patiently(self._where)
        raise AssertionError("unreachable")

    async def _end_cancelled(self) -> None:
        message = interrupted(self._prompt_id)
        result = Result(messages=[as_history(message)])
        await self._record.finish(JobState.CANCELLED, result, "cancelled before a backend had it", message)

    async def _fail(self, message: Message) -> None:
        why = message.data["exception_message"]
        result = Result(self._document.outputs, self._document.meta, [as_history(message)])
        with contextlib.suppress(Fenced):
            await self._record.finish(JobState.FAILED, result, why, message)
        if self._submitted:
            with contextlib.suppress(BackendError):
                await self._client.post("/interrupt", {"prompt_id": self._upstream_id})

    async def _give_back(self, why: str) -> None:
        """Queue it again at its old place, or fail it when it has been tried often enough."""
        attempt = self._record.job.attempt
        with contextlib.suppress(Fenced):
            if self._cancel.is_set():
                await self._end_cancelled()
            elif attempt >= self._settings.job_attempts:
                text = f"The job was tried {attempt} times and lost its backend each time ({why}). Run it again later."
                await self._fail(failed(self._prompt_id, "BackendLost", text))
            else:
                await self._record.requeue(why)
                await asyncio.to_thread(discard, self._owner.dirs, self._collector.files)

    # -- beside the way --------------------------------------------------------------------------------------------

    async def _interrupt_when_cancelled(self) -> None:
        """An interrupt that lands between two prompts is lost (protocol §8.19): repeat it until the job has ended."""
        await self._cancel.wait()
        while True:
            if self._submitted:
                with contextlib.suppress(BackendError):
                    await self._client.post("/queue", {"delete": [self._upstream_id]})
                    if await self._where() == "running":
                        await self._client.post("/interrupt", {"prompt_id": self._upstream_id})
            await asyncio.sleep(RETRY_S)

    async def _raise_when_gone(self) -> None:
        await self._member.gone.wait()
        raise Lost("the backend is gone")

    async def _patiently(self, call: Callable[[], Awaitable[T]]) -> T:
        """Repeat a call through short outages; Lost once the backend is judged down."""
        while True:
            try:
                return await call()
            except BackendGone:
                if self._member.gone.is_set():
                    raise Lost("the backend is gone") from None
                await asyncio.sleep(RETRY_S)
