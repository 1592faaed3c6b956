"""The way of one attempt through one backend: stage, submit, relay, bring home. Raises what goes wrong.

`upstream` talks to the backend, `job_files` carries files, `relay` tells the user, `endings` writes.
"""

import asyncio
from collections.abc import Awaitable, Callable, Container, Coroutine
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import Any, TypeVar

from backend_pool.backends.member import Member
from backend_pool.comfy.result import Result, began, result_of, state_of
from backend_pool.errors import BackendGone, FileGone, Swept
from backend_pool.files.known_files import KnownFiles
from backend_pool.files.owner import Owner
from backend_pool.forecasts.meter import Meter
from backend_pool.job_state import JobState
from backend_pool.jobs.record import JobRecord
from backend_pool.model import Job, JobDocument, JsonDict
from backend_pool.prompts.needs import Choice
from backend_pool.runs.endings import Endings
from backend_pool.runs.job_files import JobFiles
from backend_pool.runs.pack_files import PackFiles
from backend_pool.runs.relay import Relay
from backend_pool.runs.run_limit import RunLimit
from backend_pool.runs.stock_files import StockFiles
from backend_pool.runs.upstream import Evicted, Lost, Upstream
from proxy.base.clock import now_ms
from proxy.base.errors import CallerError
from proxy.base.logs import events
from proxy.base.settings import Settings
from proxy.base.tasks import beside

log = events(__name__)
T = TypeVar("T")

TRANSFER_PAUSES_S = (0.2, 1.0)
"""Between the tries to fetch a file."""


class TokensGone(CallerError):
    """API tokens of paid nodes that nobody has any more."""


class Stop(StrEnum):
    """Who wants a running job to end."""

    USER = "cancelled"
    SILENCE = "stood still"
    LIMIT = "ran too long"


class Stopped(Exception):
    """A running job was told to end. Unless `heeded` the backend goes on all the same."""

    def __init__(self, stop: Stop, *, heeded: bool) -> None:
        super().__init__(stop.value)
        self.stop = stop
        self.heeded = heeded


@dataclass(frozen=True)
class Kit:
    """What attempts of one job at one backend are made with."""

    document: JobDocument
    member: Member
    owner: Owner
    known: KnownFiles
    settings: Settings
    rendered: Callable[[], None]
    """Called when the backend has ended the prompt for good: it may have its next job."""
    run_limit: RunLimit | None = None
    chosen: Container[Choice] | None = None
    """As in `traits`."""


class Attempt:
    """One prompt at one backend, under the upstream ids in the job's row."""

    def __init__(self, kit: Kit, record: JobRecord, cancel: asyncio.Event) -> None:
        job = record.job
        assert job.upstream_id and job.upstream_client
        self._kit = kit
        self._record = record
        self._cancel = cancel
        self._stop: Stop | None = None
        self._interrupted = False
        self._document = kit.document
        self.upstream = Upstream(kit.member, job.upstream_id, job.upstream_client, kit.settings, record.delay)
        self.meter = Meter(kit.document.prompt, kit.chosen)
        self.files = files_for(kit, job, record.note_files)
        self.relay = Relay(record, self.files, self.meter, kit.member.row.name, kit.rendered)
        self.endings = Endings(record, self.files, self.relay, self.meter, kit.member)

    async def carry(self, *, resume: bool) -> Result | None:
        """To the backend's end of it, whose result is returned; None when the job was cancelled before."""
        await self.files.prepare()
        if self._record.job.state is JobState.COLLECTING:
            self.upstream.ended = True
            return Result(self._document.outputs, self._document.meta, self._document.messages)
        if resume:
            await self.upstream.take_up(begun=self._record.began)
        if self._document.files and not self.upstream.submitted:
            await asyncio.to_thread(self.files.discard, {})  # an earlier attempt could not tidy up
            await self._record.note_files([])
        if self._cancel.is_set() and not self.upstream.submitted:
            await self.endings.cancelled("cancelled before a backend had it")
            return None
        watches = (self._heed_silence, self._heed_limit, self._heed_eviction)
        try:
            await self._beside(self.upstream.follow(self.files, self._order(), self.relay), *watches)
        except Exception:  # while files came that it named: they are still there, but nothing is left to interrupt
            self.upstream.ended |= self._record.rendered_ms is not None
            raise
        entry = await self.upstream.history()
        result = result_of(await asyncio.to_thread(self.files.document, entry), self._record.job.prompt_id)
        self._interrupted = state_of(result.messages) is JobState.CANCELLED
        if self._stop is not None and self._interrupted and not self._cancel.is_set():
            self._record.rendered()
            raise Stopped(self._stop, heeded=True)
        return result

    async def conclude(self, result: Result) -> None:
        """Bring home what is missing, store the end, tell what has not been told."""
        self._record.rendered()
        self.endings.charge(result.messages)
        self._kit.rendered()
        self.files.began(began(result.messages))
        if await self._missing(result):
            if self._record.job.state is not JobState.COLLECTING:
                await self.endings.collecting(result)
            await self._beside(self._fetch(self.files.bring_rest))
        for node, ui in result.outputs.items():
            if not self.files.is_home(ui):
                await self._beside(self._fetch(partial(self.files.localize, ui)))
            display = (result.meta.get(node) or {}).get("display_node", node)
            self.relay.tell_missed(node, display, await self.files.localize(ui))
        outputs = {node: self.relay.told[node] for node in result.outputs}
        messages, meta = self.files.restored(result.messages), self.files.restored(result.meta)
        await self.endings.done(Result(outputs, meta, messages))

    async def forget(self) -> None:
        """Leave nothing of an ended attempt at the backend. Raises BackendError."""
        if self.upstream.ended:
            await self.files.forget()

    @property
    def _has_ended(self) -> bool:
        """Whether the backend is done with it, be files still on their way."""
        return self.upstream.ended or self._record.rendered_ms is not None

    def _order(self) -> JsonDict:
        """What is submitted beside the prompt. Raises TokensGone for a job that must not run without them."""
        secrets = self._kit.owner.secrets
        gone = [name for name in self._document.withheld if name not in secrets]
        if gone and not self.upstream.submitted:
            raise TokensGone(
                f"The job came with {' and '.join(gone)}, which is kept in memory only, and the server has been "
                "restarted since. Queue it again."
            )
        return {
            "extra_data": {**self._document.extra_data, **secrets},
            "partial_execution_targets": self._document.targets,
        }

    async def _beside(self, way: Coroutine[Any, Any, T], *watches: Callable[[], Coroutine[Any, Any, None]]) -> T:
        """Go the way while watching for the user's cancel and the backend's death, and noting that the job began."""
        watches = (self._heed_cancel, self.upstream.raise_when_gone, self._record.write_running, *watches)
        return await beside(f"job {self._record.job.key}", way, [watch() for watch in watches])

    async def _heed_cancel(self) -> None:
        await self._cancel.wait()
        if self._has_ended:  # nothing is left to interrupt
            # What a job made before it heeded is still fetched.
            await asyncio.sleep(self._kit.settings.cancel_grace_s if self._interrupted else 0)
            raise Stopped(Stop.USER, heeded=True)
        await self._end(Stop.USER)

    async def _heed_silence(self) -> None:
        """A running job whose backend says nothing of it any more hangs, or its backend has lost its voice."""
        limit_s = self._kit.settings.job_silence_s
        await self.relay.began.wait()
        while (left_s := limit_s - self.relay.silent_s) > 0:  # noqa: ASYNC110 - only time passes
            await asyncio.sleep(left_s)
        await self._end(Stop.SILENCE)

    async def _heed_limit(self) -> None:
        if self._kit.run_limit is None:
            return
        await self.relay.began.wait()
        since_ms = self._record.began_ms or self._record.job.started_ms or now_ms()
        ran_s = max(0.0, (now_ms() - since_ms) / 1000)  # a clock that was set back gives no more than the limit
        await asyncio.sleep(max(0.0, self._kit.run_limit.seconds - ran_s))
        await self._end(Stop.LIMIT)

    async def _heed_eviction(self) -> None:
        """Its backend is to be emptied of what it executes: what has ended there is fetched, not rendered again."""
        await self._kit.member.evict.wait()
        if not self._has_ended:
            raise Evicted("its backend was emptied", counts=False)

    async def _end(self, stop: Stop) -> None:
        """Interrupt it at the backend, until it is heeded; `follow` sees the end."""
        if stop is not Stop.USER and self._record.rendered_ms is not None:
            return  # it has ended there, and its last files are being fetched
        if stop is not Stop.USER:  # who stood still for too long must not end what another server carries on
            await self._record.check_held()
        self._stop = stop
        try:
            async with asyncio.timeout(self._kit.settings.cancel_grace_s):
                await self.upstream.interrupt()
        except TimeoutError:
            if stop is not Stop.USER and await self.upstream.patiently(self.upstream.where) == "history":
                return
            raise Stopped(stop, heeded=False) from None

    async def _missing(self, result: Result) -> bool:
        try:
            return await self.upstream.patiently(lambda: self.files.missing(result.outputs.values()))
        except FileGone:
            await self._check_kept()
            raise

    async def _check_kept(self) -> None:
        """Raises Lost for a backend that has nothing of the job any more: it may run again elsewhere."""
        if await self.upstream.patiently(self.upstream.where) == "absent":
            raise Lost("the backend was started anew, and the job's files are gone with what it was")

    async def _fetch(self, bring: Callable[[], Awaitable[Any]]) -> None:
        """Files from the backend. A broken transfer is repeated; what the backend cannot give fails the job."""
        for pause_s in TRANSFER_PAUSES_S:
            try:
                await bring()
                return
            except (FileGone, BackendGone, Swept) as error:
                name = self._kit.member.row.name
                log.warning("file not fetched", job=self._record.job.prompt_id, backend=name, error=str(error))
            await asyncio.sleep(pause_s)
            await self._check_kept()  # by now another job's file may have the name
        try:
            await bring()
        except BackendGone as error:  # it answers otherwise: rendering again would end the same
            raise FileGone(f"A file could not be fetched from the backend: {error}") from error
        except FileGone:
            await self._check_kept()
            raise


def files_for(kit: Kit, job: Job, note: Callable[[list[JsonDict]], Awaitable[None]]) -> JobFiles:
    """The way that a job's files travel to and from this backend."""
    settings = kit.settings
    if kit.member.worker is not None:
        users = settings.data_dir / "users"
        return PackFiles(job, kit.document, member=kit.member, owner=kit.owner, note=note, users_dir=users)
    keep = settings.backend_inputs_mb if settings.sweep_backends else None
    return StockFiles(
        job, kit.document, member=kit.member, owner=kit.owner, known=kit.known, note=note, keep_inputs_mb=keep
    )
