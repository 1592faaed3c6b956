"""Carries one job through one backend: stage, submit, relay, collect, conclude.

Decides what becomes of the job; `upstream` talks to the backend, `job_files` carries files, `job_record` writes.
"""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeVar

from backend_pool.errors import BackendGone, BackendRefused, FileGone, Swept
from backend_pool.frames import Message
from backend_pool.job_files import JobFiles
from backend_pool.job_record import JobRecord
from backend_pool.job_state import JobState
from backend_pool.job_store import Fenced, JobStore, Result
from backend_pool.known_files import KnownFiles
from backend_pool.listener import JobListener
from backend_pool.model import Job, JobDocument, JsonDict
from backend_pool.owner import Owner
from backend_pool.pack_files import PackFiles
from backend_pool.pool import Member
from backend_pool.staging import Unstageable
from backend_pool.stock_files import StockFiles
from backend_pool.upstream import Lost, Upstream
from backend_pool.verdicts import TERMINAL, as_history, began, failed, interrupted, refusal, result_of, state_of
from proxy.base.errors import CallerError, DiskFull
from proxy.base.logs import events
from proxy.base.settings import Settings

log = events(__name__)
T = TypeVar("T")

TRANSFER_PAUSES_S = (0.2, 1.0)
"""Between the tries to fetch a file."""


class TokensGone(CallerError):
    """API tokens of paid nodes that nobody has any more."""


class Unheeded(Exception):
    """The user cancelled, and the backend goes on all the same."""


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
        elsewhere: Callable[[BackendRefused, JsonDict], bool],
    ) -> None:
        assert job.upstream_id and job.upstream_client
        self.upstream = Upstream(member, job.upstream_id, job.upstream_client, settings)
        self._record = JobRecord(job, store, listener)
        self._prompt_id = job.prompt_id
        self._document = document
        self._member = member
        self._secrets = owner.secrets
        self._settings = settings
        self._elsewhere = elsewhere
        self._cancel = asyncio.Event()
        self._told: JsonDict = {}
        """Outputs by node that the user has been told of: they stay whatever becomes of the job."""
        self._last_words: Message | None = None
        self.lost = False
        """The backend let the job down; it deserves a look before it gets another."""
        self._files: JobFiles = StockFiles(
            job,
            document,
            member=member,
            owner=owner,
            known=known,
            note=self._record.note_files,
            keep_inputs_mb=settings.backend_inputs_mb if settings.sweep_backends else None,
        )
        if member.worker is not None:
            users = settings.data_dir / "users"
            self._files = PackFiles(
                job, document, member=member, owner=owner, note=self._record.note_files, users_dir=users
            )
        if job.cancel_requested:
            self._cancel.set()

    async def forget(self) -> None:
        """Leave nothing of an ended attempt at the backend. Raises BackendError."""
        if self.upstream.ended:
            await self._files.forget()

    def cancel(self) -> None:
        """The user wants it to end; takes effect wherever the job is."""
        self._cancel.set()

    async def run(self, *, resume: bool = False) -> JobState:
        """Carry the job to a final state or back into the queue, and return it; a job's failure is not raised."""
        try:
            await self._attempt(resume)
        except Fenced:
            log.warning("job was taken from its runner", job=self._prompt_id)
        return self._record.job.state

    async def _attempt(self, resume: bool) -> None:
        try:
            await self._carry(resume)
        except Unheeded:
            await self._end_cancelled("cancelled; the backend did not heed it in time")
        except Lost as error:
            await self._give_back(str(error), counts=error.counts)
        except BackendGone as error:
            await self._give_back(str(error), counts=True)
        except Swept as error:
            await self._give_back(str(error), counts=True)
            self.lost = False
        except BackendRefused as error:
            await self._refused(error)
        except Unstageable as error:
            node = (error.node_id, str(self._document.prompt[error.node_id].get("class_type")))
            await self._fail(failed(self._prompt_id, "ValueError", str(error), node))
        except (DiskFull, CallerError) as error:
            await self._fail(failed(self._prompt_id, type(error).__name__, error.message))
        except FileGone as error:
            await self._fail(failed(self._prompt_id, "FileGone", f"{error}. Run the job again."))
        except OSError as error:
            await self._fail(failed(self._prompt_id, type(error).__name__, f"A file could not be read: {error}"))

    # -- the way through -------------------------------------------------------------------------------------------

    async def _carry(self, resume: bool) -> None:
        await self._files.prepare()
        if self._record.job.state is JobState.COLLECTING:
            self.upstream.ended = True
            document = self._document
            await self._conclude(Result(document.outputs, document.meta, document.messages))
            return
        if resume:
            await self.upstream.take_up(begun=self._record.began)
        elif self._document.files:
            await asyncio.to_thread(self._files.discard, {})  # an earlier attempt could not tidy up
            await self._record.note_files([])
        if self._cancel.is_set() and not self.upstream.submitted:
            await self._end_cancelled("cancelled before a backend had it")
            return
        await self._beside(self.upstream.follow(self._files, self._order(), self._hear, self._record.begin))
        entry = await self.upstream.history()
        result = result_of(await asyncio.to_thread(self._files.document, entry), self._prompt_id)
        if await self.upstream.patiently(lambda: self._files.missing(result.outputs.values())):
            await self._record.collecting(result, self._files.files)
        await self._conclude(result)

    def _order(self) -> JsonDict:
        """What is submitted beside the prompt. Raises TokensGone for a job that must not run without them."""
        gone = [name for name in self._document.withheld if name not in self._secrets]
        if gone and not self.upstream.submitted:
            raise TokensGone(
                f"The job came with {' and '.join(gone)}, which is kept in memory only, and the server has been "
                "restarted since. Queue it again."
            )
        return {
            "extra_data": {**self._document.extra_data, **self._secrets},
            "partial_execution_targets": self._document.targets,
        }

    async def _beside(self, way: Awaitable[T]) -> T:
        """Go the way while watching for the user's cancel and the backend's death, and noting that the job began."""
        try:
            async with asyncio.TaskGroup() as group:
                beside = [
                    group.create_task(self._heed_cancel(), name=f"cancel {self._prompt_id}"),
                    group.create_task(self.upstream.raise_when_gone(), name=f"loss {self._prompt_id}"),
                    group.create_task(self._record.write_running(), name=f"running {self._prompt_id}"),
                ]
                result = await way
                for task in beside:
                    task.cancel()
            return result
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None

    async def _heed_cancel(self) -> None:
        await self._cancel.wait()
        try:
            async with asyncio.timeout(self._settings.cancel_grace_s):
                await self.upstream.interrupt()
        except TimeoutError:
            raise Unheeded from None

    async def _hear(self, frame: str | bytes) -> bool:
        """Act on one frame; True for the end marker."""
        if isinstance(frame, bytes):
            translated = self._files.binary(frame) if self._record.began else None
            if translated is not None:
                self._record.tell(translated)
            return False
        message = self._files.text(frame)
        if message is None:
            return False
        if message.type == "executing" and message.data.get("node") is None:
            return "prompt_id" in message.data
        if message.type in TERMINAL and "timestamp" in message.data:
            self._last_words = message  # told once the result is stored; a blocked node's error has no timestamp
        elif message.type == "executed":
            await self._executed(message.data)
        else:
            if message.type == "execution_start":
                self._record.begin()
                self._files.began(message.data.get("timestamp"))
            self._record.tell(message)
        return False

    async def _executed(self, data: JsonDict) -> None:
        """Bring the files, then tell. What cannot be brought now is tried again at the end."""
        try:
            output = await self._files.localize(data.get("output"))
        except (FileGone, BackendGone, Swept) as error:
            log.warning("file not fetched yet", job=self._prompt_id, backend=self._member.row.name, error=str(error))
            return
        self._told[str(data.get("node"))] = output
        self._record.tell(Message("executed", {**self._files.restored(data), "output": output}))

    # -- the end ---------------------------------------------------------------------------------------------------

    async def _conclude(self, result: Result) -> None:
        """Bring home what is missing, store the end, tell what has not been told."""
        self._files.began(began(result.messages))
        if await self.upstream.patiently(lambda: self._files.missing(result.outputs.values())):
            await self._beside(self._fetch(self._files.bring_rest))
        for node, ui in result.outputs.items():
            if not self._files.is_home(ui):
                await self._beside(self._fetch(partial(self._files.localize, ui)))
            localized = await self._files.localize(ui)
            if node not in self._told:  # the socket was gone meanwhile; many clients read nothing but `executed`
                display = (result.meta.get(node) or {}).get("display_node", node)
                data = {"node": node, "display_node": display, "output": localized, "prompt_id": self._prompt_id}
                self._record.tell(Message("executed", data))
            self._told[node] = localized
        outputs = {node: self._told[node] for node in result.outputs}
        messages = self._files.restored(result.messages)
        last = self._last_words or next((Message(m[0], m[1]) for m in reversed(messages) if m[0] in TERMINAL), None)
        final = Result(outputs, self._files.restored(result.meta), messages)
        await self._record.finish(state_of(messages), final, "ended at the backend", last)

    async def _fetch(self, bring: Callable[[], Awaitable[Any]]) -> None:
        """Files from the backend. A broken transfer is repeated; what the backend cannot give fails the job."""
        for pause_s in TRANSFER_PAUSES_S:
            try:
                await bring()
                return
            except (FileGone, BackendGone, Swept) as error:
                log.warning("file not fetched", job=self._prompt_id, backend=self._member.row.name, error=str(error))
            await asyncio.sleep(pause_s)
            await self.upstream.patiently(self.upstream.where)
        try:
            await bring()
        except BackendGone as error:  # it answers otherwise: rendering again would end the same
            raise FileGone(f"A file could not be fetched from the backend: {error}") from error

    async def _end_cancelled(self, why: str) -> None:
        message = interrupted(self._prompt_id)
        await asyncio.to_thread(self._files.discard, self._told)
        result = Result(self._told, messages=[as_history(message)])
        await self._record.finish(JobState.CANCELLED, result, why, message)

    async def _fail(self, message: Message) -> None:
        message = Message(message.type, self._files.restored(message.data))
        await asyncio.to_thread(self._files.discard, self._told)
        result = Result(self._told, messages=[as_history(message)])
        await self._record.finish(JobState.FAILED, result, message.data["exception_message"], message)

    async def _refused(self, error: BackendRefused) -> None:
        """The user's error, unless the backend lost what another still has: the job goes there, and it is looked at."""
        tried_enough = self._record.job.attempt >= self._settings.job_attempts
        if not tried_enough and self._elsewhere(error, self._document.prompt):
            await self._give_back("the backend does not have what it listed", counts=True)
        else:
            await self._fail(refusal(self._prompt_id, self._document.prompt, error))

    async def _give_back(self, why: str, *, counts: bool) -> None:
        """Queue it again at its old place, or fail it when it has been tried often enough."""
        attempt, self.lost = self._record.job.attempt, not self._cancel.is_set()
        if self._cancel.is_set():
            await self._end_cancelled(f"cancelled; {why}")
        elif counts and attempt >= self._settings.job_attempts:
            text = f"The job was tried {attempt} times and lost its backend each time ({why}). Run it again later."
            await self._fail(failed(self._prompt_id, "BackendLost", text))
        else:
            await self._record.check_held()
            await asyncio.to_thread(self._files.discard, {})  # before it may start elsewhere, under the same names
            await self._record.requeue(why, counts=counts, files=self._files.files)
