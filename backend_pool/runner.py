"""Carries one job through one backend, and decides what becomes of it when something goes wrong there.

`attempt` is the way through, `endings` writes what is decided here.
"""

import asyncio
from collections.abc import Callable

from backend_pool.attempt import Attempt, Kit, TokensGone, Unheeded
from backend_pool.errors import BackendGone, BackendRefused, FileGone, Swept
from backend_pool.job_record import JobRecord
from backend_pool.job_state import JobState
from backend_pool.job_store import Fenced, JobStore
from backend_pool.known_files import KnownFiles
from backend_pool.listener import JobListener
from backend_pool.meter import Meter
from backend_pool.model import Job, JobDocument, JsonDict
from backend_pool.owner import Owner
from backend_pool.pool import Member
from backend_pool.staging import Unstageable
from backend_pool.upstream import Lost, Upstream
from backend_pool.verdicts import failed, refusal
from proxy.base.clock import now_ms
from proxy.base.errors import CallerError, DiskFull
from proxy.base.logs import events
from proxy.base.settings import Settings

__all__ = ["Runner", "TokensGone"]

log = events(__name__)


class Runner:
    """One job at one backend. Cancelling the task of `run` leaves the row as it is, for recovery."""

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
        rendered: Callable[[], None] = lambda: None,
    ) -> None:
        """`rendered` is called once the backend has ended the prompt, while files may still be on their way."""
        self._record = JobRecord(job, store, listener)
        self._prompt_id = job.prompt_id
        self._document = document
        self._settings = settings
        self._elsewhere = elsewhere
        self._cancel = asyncio.Event()
        self._kit = Kit(document, member, owner, known, settings, rendered)
        self._attempt = Attempt(self._kit, self._record, self._cancel)
        self.lost = False
        """The backend let the job down; it deserves a look before it gets another."""
        self._settled = False
        if job.cancel_requested:
            self._cancel.set()

    @property
    def upstream(self) -> Upstream:
        """The latest attempt's prompt at the backend."""
        return self._attempt.upstream

    @property
    def meter(self) -> Meter:
        """Where the latest attempt's time went."""
        return self._attempt.meter

    @property
    def began_ms(self) -> int | None:
        """When its backend began it, as far as this process heard."""
        return self._record.began_ms

    @property
    def used_s(self) -> float:
        """What its user has had of the backend: from its beginning to its end there."""
        row = self._record.job
        since_ms, until_ms = self._record.began_ms or row.started_ms, self._record.rendered_ms or row.rendered_ms
        if row.gpu_ms or since_ms is None:
            return row.gpu_ms / 1000
        return max(0, (until_ms or row.ended_ms or now_ms()) - since_ms) / 1000

    async def forget(self) -> None:
        """Leave nothing of an ended attempt at the backend. Raises BackendError.

        Not when `run` was cut short: whoever takes the job up again reads its end from the backend's history.
        """
        if self._settled:
            await self._attempt.forget()

    def cancel(self) -> None:
        """The user wants it to end; takes effect wherever the job is."""
        self._cancel.set()

    async def run(self, *, resume: bool = False) -> JobState:
        """Carry the job to a final state or back into the queue, and return it; a job's failure is not raised."""
        try:
            await self._carry(resume)
        except Fenced:
            log.warning("job was taken from its runner", job=self._prompt_id)
        self._settled = True
        return self._record.job.state

    async def _carry(self, resume: bool) -> None:
        attempt = self._attempt
        try:
            result = await attempt.carry(resume=resume)
            if result is not None:
                await attempt.conclude(result)
        except Unheeded:
            await attempt.endings.cancelled("cancelled; the backend did not heed it in time")
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
            await self._fail("ValueError", str(error), node)
        except (DiskFull, CallerError) as error:
            await self._fail(type(error).__name__, error.message)
        except FileGone as error:
            await self._fail("FileGone", f"{error}. Run the job again.")
        except OSError as error:
            await self._fail(type(error).__name__, f"A file could not be read: {error}")

    async def _fail(self, kind: str, text: str, node: tuple[str, str] = ("", ""), *, charged: bool = True) -> None:
        await self._attempt.endings.failed(failed(self._prompt_id, kind, text, node), charged=charged)

    async def _refused(self, error: BackendRefused) -> None:
        """The user's error, unless the backend lost what another still has: the job goes there, and it is looked at."""
        tried_enough = self._record.job.attempt >= self._settings.job_attempts
        if not tried_enough and self._elsewhere(error, self._document.prompt):
            await self._give_back("the backend does not have what it listed", counts=True)
        else:
            await self._attempt.endings.failed(refusal(self._prompt_id, self._document.prompt, error))

    async def _give_back(self, why: str, *, counts: bool) -> None:
        """Queue it again at its old place, or fail it when it has been tried often enough."""
        attempt, self.lost = self._record.job.attempt, not self._cancel.is_set()
        if self._cancel.is_set():
            await self._attempt.endings.cancelled(f"cancelled; {why}")
        elif counts and attempt >= self._settings.job_attempts:
            text = f"The job was tried {attempt} times and lost its backend each time ({why}). Run it again later."
            await self._fail("BackendLost", text, charged=False)
        else:
            await self._attempt.endings.given_back(why, counts=counts)
