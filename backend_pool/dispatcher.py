"""Gives waiting jobs to idle backends and keeps one runner per job alive.

A bell wakes it, a poll decides: nothing depends on the bell being heard. Each round first takes up every job that is on
a backend without a runner, before anything new is placed.
"""

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from backend_pool.collector import KnownFiles
from backend_pool.job_state import FINAL, JobState
from backend_pool.job_store import Fenced, JobStore
from backend_pool.listener import JobListener
from backend_pool.model import Job
from backend_pool.node_info import Needs, lacks, needs
from backend_pool.placement import Waiting, forecast, order
from backend_pool.pool import Member, Pool
from backend_pool.runner import Owner, Runner
from proxy.base.errors import ClusterError
from proxy.base.logs import events
from proxy.base.settings import Settings
from proxy.base.tasks import Tasks

log = events(__name__)

OwnerOf = Callable[[int, Mapping[str, Any]], Awaitable[Owner]]
"""(user_id, secrets of the job) -> the user's directories and tag."""

NEEDS_KEPT = 10_000


class Dispatcher:
    """The one writer of `Member.job`."""

    def __init__(
        self,
        *,
        store: JobStore,
        pool: Pool,
        tasks: Tasks,
        listener: JobListener,
        owner_of: OwnerOf,
        settings: Settings,
    ) -> None:
        self._store = store
        self._pool = pool
        self._tasks = tasks
        self._listener = listener
        self._owner_of = owner_of
        self._settings = settings
        self._known = KnownFiles()
        self._bell = asyncio.Event()
        self._carried: set[int] = set()
        self._runners: dict[int, Runner] = {}
        self._held: set[tuple[int, str]] = set()
        self._secrets: dict[int, Mapping[str, Any]] = {}
        self._needs: OrderedDict[int, tuple[int, Needs]] = OrderedDict()
        self._served: dict[int, int] = {}
        self._busy: set[int] = set()
        self._placements = 0

    def ring(self) -> None:
        """A job or a backend has become free."""
        self._bell.set()

    @contextlib.contextmanager
    def hold(self, user_id: int, prompt_id: str) -> Any:
        """Keep a job from starting until its submitter has been answered (CLIENT_DEMANDS B8)."""
        self._held.add((user_id, prompt_id))
        try:
            yield
        finally:
            self._held.discard((user_id, prompt_id))
            self.ring()

    def keep_secrets(self, seq: int, secrets: Mapping[str, Any]) -> None:
        """API tokens of a job, in memory only: they are never stored, so a restart forgets them."""
        if secrets:
            self._secrets[seq] = secrets

    def cancel(self, jobs: list[Job]) -> None:
        """Pass the flag on to the runners of these jobs."""
        for job in jobs:
            runner = self._runners.get(job.key)
            if runner is not None:
                runner.cancel()
            if job.state is JobState.CANCELLED:
                self._secrets.pop(job.key, None)
        self.ring()

    def busy_users(self) -> set[int]:
        """Users with a job on a backend or waiting for one, as of the last round."""
        return self._busy

    async def places(self) -> dict[int, int]:
        """Place in line by job key, over all users."""
        waiting = [Waiting(job.key, job.user_id, job.number) for job in await self._store.waiting()]
        busy = [job.user_id for job in await self._store.on_backends()]
        return forecast(waiting, busy, self._served)

    async def recover(self) -> None:
        """Take up jobs that are on a backend and have no runner: after a restart, or when a runner died."""
        for job in await self._store.on_backends():
            if job.key in self._carried:
                continue
            member = self._pool.member(job.backend_id)
            if member is None or job.upstream_id is None:
                await self._store.requeue(job, "its backend is not registered any more")
            elif member.job is None:
                log.info("job taken up again", job=job.prompt_id, backend=member.row.name, state=job.state)
                self._start(job, member, resume=True)

    async def watch(self) -> None:
        """Place jobs, for ever."""
        while True:
            try:
                await self.recover()
                self._busy = await self._store.users_with_jobs()
                await self._place()
            except ClusterError as error:
                log.error("jobs could not be placed", error=error.message)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._bell.wait(), self._settings.job_poll_s)
            self._bell.clear()

    async def _place(self) -> None:
        idle = [member for member in self._pool.members.values() if member.idle]
        if not idle:
            return
        heads = {job.key: job for job in await self._store.heads() if (job.user_id, job.prompt_id) not in self._held}
        for head in order((Waiting(job.key, job.user_id, job.number) for job in heads.values()), self._served):
            if not idle:
                return
            member = await self._choose(heads[head.seq], idle)
            if member is None:
                continue
            job = await self._store.assign(head.seq, member.key)
            if job is None:
                continue
            idle.remove(member)
            self._placements += 1
            self._served[job.user_id] = self._placements
            log.info("job placed", job=job.prompt_id, user=job.user_id, backend=member.row.name, attempt=job.attempt)
            self._start(job, member, resume=False)

    def _start(self, job: Job, member: Member, *, resume: bool) -> None:
        member.job = job.key
        self._carried.add(job.key)
        self._tasks.start(f"job {job.key}", self._run(job, member, resume=resume))

    async def _choose(self, job: Job, idle: list[Member]) -> Member | None:
        """The idle backend that can run the job and has run the fewest, so that work spreads."""
        wanted = await self._needs_of(job)
        able = [member for member in idle if lacks(wanted, member.info) is None]
        return min(able, key=lambda member: (member.failed, member.done, member.key), default=None)

    async def _needs_of(self, job: Job) -> Needs:
        generation, kept = self._needs.get(job.key, (-1, None))
        if kept is None or generation != self._pool.generation:
            document = await self._store.document(job.key)
            kept = needs(document.prompt, self._pool.info.union)
            self._needs[job.key] = (self._pool.generation, kept)
            while len(self._needs) > NEEDS_KEPT:
                self._needs.popitem(last=False)
        return kept

    async def _run(self, job: Job, member: Member, *, resume: bool) -> None:
        try:
            document = await self._store.document(job.key)
            owner = await self._owner_of(job.user_id, self._secrets.get(job.key, {}))
            runner = Runner(
                job,
                document,
                member=member,
                owner=owner,
                store=self._store,
                listener=self._listener,
                known=self._known,
                settings=self._settings,
            )
            self._runners[job.key] = runner
            if await self._store.cancel_requested(job.key):  # it may have come before the runner could hear it
                runner.cancel()
            state = await runner.run(resume=resume)
            member.failed = member.failed + 1 if state is JobState.QUEUED else 0
            if state in FINAL:
                self._secrets.pop(job.key, None)
                await self._store.prune(job.user_id)
        except Fenced:
            log.info("job removed before it ran", job=job.prompt_id)
        finally:
            self._carried.discard(job.key)
            self._runners.pop(job.key, None)
            self._needs.pop(job.key, None)
            member.job = None
            member.done += 1
            if member.key not in self._pool.members:
                await member.client.close()
            self.ring()
