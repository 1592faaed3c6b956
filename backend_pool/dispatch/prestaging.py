"""Input files of the job that a backend will probably have next go there while it executes the present one.

Names are of content, so a wrong guess does no harm: files that lie there already are not sent again. At most one job
ahead per backend, given up when another guess takes its place.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

from backend_pool.backends.health import Health
from backend_pool.backends.member import Member
from backend_pool.dispatch.turns import Turns
from backend_pool.errors import BackendError, FileGone
from backend_pool.files.known_files import KnownFiles
from backend_pool.files.owner import Owner
from backend_pool.files.staging import Unstageable
from backend_pool.jobs.held import Fenced
from backend_pool.jobs.store import JobStore
from backend_pool.model import BackendMode, Job, JsonDict
from backend_pool.runs.attempt import Kit, files_for
from proxy.base.clock import monotonic_s
from proxy.base.errors import ClusterError
from proxy.base.logs import events
from proxy.base.settings import Settings
from proxy.base.tasks import Tasks

log = events(__name__)

LOOK_EVERY_S = 0.25
AHEAD = "ahead"
"""Stands for the upstream id that the job will be given."""


@dataclass
class _Guess:
    seq: int
    task: asyncio.Task[None]


class Prestaging:
    """What is sent ahead, by backend."""

    def __init__(
        self,
        store: JobStore,
        tasks: Tasks,
        owner: Callable[[int, int], Awaitable[Owner]],
        known: KnownFiles,
        settings: Settings,
    ) -> None:
        self._store = store
        self._tasks = tasks
        self._owner = owner
        self._known = known
        self._settings = settings
        self._guesses: dict[int, _Guess] = {}
        self._again_s = 0.0

    def look_ahead(self, members: Iterable[Member], turns: Turns) -> None:
        """Guess anew; seldom enough that guessing costs little beside placing."""
        now = monotonic_s()
        if now < self._again_s or not turns.sending:
            return
        self._again_s = now + LOOK_EVERY_S
        present = {member.key: member for member in members}
        for key in self._guesses.keys() - present.keys():
            self._guesses.pop(key).task.cancel()
        busy = [member for member in present.values() if member.job is not None and member.health is Health.UP]
        busy = [member for member in busy if member.row.mode is BackendMode.ACTIVE]
        busy.sort(key=lambda member: member.busy_since_s or 0.0)
        guessed = {member.key: job for member, job in turns.after(busy)}
        for member in busy:
            self.guess(member, guessed.get(member.key))

    def guess(self, member: Member, job: Job | None) -> None:
        """This job will probably run there next. None keeps the guess before: jobs that are judged anew stand in no
        line for a moment, and what is on its way would be sent again."""
        known = self._guesses.get(member.key)
        if job is None or (known is not None and known.seq in (member.job, job.key)):
            return  # one that was just placed is waiting for what is on its way
        if known is not None:
            known.task.cancel()
        task = self._tasks.start(f"stage {job.key} ahead", self._send(job, member))
        self._guesses[member.key] = _Guess(job.key, task)

    async def finished(self, member: Member, seq: int) -> None:
        """The job runs there now: wait for what is on its way, else its runner would send it a second time."""
        known = self._guesses.pop(member.key, None)
        if known is None:
            return
        if known.seq != seq:
            known.task.cancel()
            return
        await asyncio.wait([known.task], timeout=self._settings.transfer_timeout_s)
        known.task.cancel()

    async def _send(self, job: Job, member: Member) -> None:
        """What goes wrong here is for the job's runner to meet and to say."""
        wrong = (BackendError, FileGone, Unstageable, Fenced, ClusterError, OSError)
        with contextlib.suppress(*wrong):
            document = await self._store.document(job.key)
            owner = await self._owner(job.user_id, job.key)
            kit = Kit(document, member, owner, self._known, self._settings, lambda: None)
            ahead = Job(**{**job.model_dump(), "upstream_id": AHEAD, "upstream_client": AHEAD})
            files = files_for(kit, ahead, _note)
            await files.prepare()
            await files.send()


async def _note(_files: list[JsonDict]) -> None:
    """Nothing comes home before the job runs."""
