"""Carries one job through one backend, and decides what becomes of it when something goes wrong there.

`attempt` is the way through, `endings` writes what is decided here.
"""

import asyncio
import contextlib
from collections.abc import Callable

from backend_pool.backends.housekeeping import free
from backend_pool.backends.member import Member
from backend_pool.backends.pool import Pool
from backend_pool.books.share import Share
from backend_pool.comfy.result import Result
from backend_pool.comfy.verdicts import failed, refusal
from backend_pool.errors import BackendError, BackendGone, BackendRefused, FileGone, Swept
from backend_pool.files.known_files import KnownFiles
from backend_pool.files.owner import Owner
from backend_pool.files.staging import Unstageable
from backend_pool.forecasts.meter import Meter
from backend_pool.forecasts.signature import Traits
from backend_pool.job_state import JobState
from backend_pool.jobs.held import Fenced
from backend_pool.jobs.listener import JobListener
from backend_pool.jobs.record import JobRecord
from backend_pool.jobs.store import JobStore
from backend_pool.model import Job, JobDocument, JsonDict
from backend_pool.offers.fitness import demands
from backend_pool.runs.attempt import Attempt, Kit, Stop, Stopped
from backend_pool.runs.endings import Endings
from backend_pool.runs.harms import Harms
from backend_pool.runs.ladder import HARMFUL, KILLER, KILLS, LOSSES, Act, Case, Mishap, next_step
from backend_pool.runs.mishaps import mishap_of, said, with_hint
from backend_pool.runs.prospects import is_roomier
from backend_pool.runs.run_limit import limit_of, spelled
from backend_pool.runs.upstream import Evicted, Lost, Upstream
from proxy.base.errors import CallerError, DiskFull
from proxy.base.logs import events
from proxy.base.settings import Settings

log = events(__name__)

UNFETCHED = "its files were lost on their way: "
"""Begins the reason in the trail, by which such losses are counted."""
FREED_AFTER_S = 0.5
"""ComfyUI frees its memory in the thread that executes, soon after it is asked: a prompt must not overtake that."""


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
        pool: Pool,
        elsewhere: Callable[[BackendRefused, JsonDict], bool],
        rendered: Callable[[], None],
        share: Share,
        harms: Harms,
        traits: Traits,
    ) -> None:
        """`rendered` is called once the backend has ended the prompt, while files may still be on their way."""
        self._record = JobRecord(job, store, listener)
        self._prompt_id = job.prompt_id
        self._document = document
        self._settings = settings
        self._pool = pool
        self._elsewhere = elsewhere
        self._harms = harms
        self._traits = traits
        self._cancel = asyncio.Event()
        self._labels = share.labels.union(job.labels)
        self._kit = Kit(document, member, owner, known, settings, rendered, limit_of(share), traits.chosen)
        self._attempt = Attempt(self._kit, self._record, self._cancel)
        self.lost = False
        """The backend let the job down; it deserves a look before it gets another."""
        self._settled = False
        self.taken = False
        """Another server carries the job now: what it has at the backend is that one's."""
        self._before_ms = 0
        """What earlier attempts of this runner's are charged."""
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
        """When the backend began the latest attempt; None where it did not, or an earlier process saw it."""
        return self._record.began_ms

    @property
    def used_s(self) -> float:
        """Seconds of the backend that the user is charged here: 0 before the end, and where the backend was lost."""
        return (self._before_ms + self._endings.used_ms) / 1000

    @property
    def delay_s(self) -> float:
        """Seconds for which it had to wait there through nothing that its user did."""
        return self._record.delay.seconds

    def price_s(self, kept_s: float) -> float:
        """What turns charge when it kept the backend for so long: all of it, files on their way there included, but
        of an attempt that the backend lost nothing."""
        return self.used_s if self._endings.forgiven else max(self.used_s, kept_s)

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
            while await self._carry(resume):
                resume = False
        except Fenced as error:
            log.warning("job was taken from its runner", job=self._prompt_id)
            self.taken = not error.gone
        self._settled = not self.taken
        return self._record.job.state

    async def _carry(self, resume: bool) -> bool:
        """One attempt; True when another is to be made here."""
        try:
            result = await self._attempt.carry(resume=resume)
            if result is None:
                return False
            mishap = (
                None
                if self._record.job.state is JobState.COLLECTING
                else mishap_of(result.messages, self._document.prompt)
            )
            if mishap is not None:
                return await self._mishap(mishap, said(result), result)
            await self._attempt.conclude(result)
        except Stopped as error:
            return await self._stopped(error)
        except Evicted as error:
            await self._endings.given_back(str(error), counts=False)
        except Lost as error:
            return await self._mishap(Mishap.GONE if error.counts else Mishap.NEVER_BEGAN, str(error))
        except BackendGone as error:
            return await self._mishap(Mishap.GONE, str(error))
        except Swept as error:
            return await self._mishap(Mishap.SWEPT, str(error))
        except BackendRefused as error:
            return await self._refused(error)
        except Unstageable as error:
            node = (error.node_id, str(self._document.prompt[error.node_id].get("class_type")))
            await self._fail("ValueError", str(error), node)
        except (DiskFull, CallerError) as error:
            await self._fail(type(error).__name__, error.message)
        except FileGone as error:
            await self._fail("FileGone", f"{error}. Run the job again.")
        except OSError as error:
            await self._fail(type(error).__name__, f"A file could not be read: {error}")
        return False

    @property
    def _endings(self) -> Endings:
        return self._attempt.endings

    async def _fail(self, kind: str, text: str, node: tuple[str, str] = ("", ""), *, charged: bool = True) -> None:
        await self._endings.failed(failed(self._prompt_id, kind, text, node), charged=charged)

    async def _stopped(self, error: Stopped) -> bool:
        """It was told to end while it ran."""
        if error.stop is Stop.USER or self._cancel.is_set():
            late = "" if error.heeded else "; the backend did not heed it in time"
            await self._endings.cancelled(f"cancelled{late}")
        elif error.stop is Stop.LIMIT and self._kit.run_limit is not None:
            await self._fail("JobTooLong", self._kit.run_limit.words)
        else:
            why = f"no sign of life for {spelled(self._settings.job_silence_s)}"
            if error.heeded:
                return await self._mishap(Mishap.HUNG, why)
            return await self._mishap(Mishap.DEAF, f"{why}, and it does not heed an interrupt")
        return False

    async def _refused(self, error: BackendRefused) -> bool:
        """The user's error, unless the backend lost what another still has: the job goes there, and it is looked at."""
        if self._elsewhere(error, self._document.prompt):
            return await self._mishap(Mishap.OUTDATED, "the backend does not have what it listed", refused=error)
        await self._endings.failed(refusal(self._prompt_id, self._document.prompt, error))
        return False

    # -- the ladder ------------------------------------------------------------------------------------------------

    async def _mishap(
        self, mishap: Mishap, why: str, result: Result | None = None, refused: BackendRefused | None = None
    ) -> bool:
        """Do what the ladder says; True when the job is to be tried again here."""
        if self._cancel.is_set():
            await self._endings.cancelled(f"cancelled; {why}")
            return False
        if mishap in LOSSES and self._has_ended:
            mishap, why = Mishap.UNFETCHED, UNFETCHED + why
        step = next_step(await self._case(mishap, why))
        self.lost = step.doubt
        log.warning(
            "mishap", job=self._prompt_id, backend=self._kit.member.row.name, what=mishap, why=why, act=step.act
        )
        if self._record.began and mishap in HARMFUL:
            kills = step.error is not None and step.error[0] == KILLER
            times, broke = (KILLS, True) if kills else (1, step.quarantine)
            self._harms.note(self._record.job.user_id, self._traits, broke=broke, times=times)
        if step.quarantine:
            await self._pool.quarantine(self._kit.member, why, restart=step.restart)
        if step.charged and result is not None:
            self._endings.charge(result.messages)
        if step.act is Act.HERE:
            return await self._again(f"{why}; its memory was freed")
        if step.act is Act.ELSEWHERE:
            avoid = self._kit.member.key if step.avoid else None
            await self._endings.given_back(
                why, counts=step.counts, charged=step.charged, avoid=avoid, vram_mb=step.vram_mb
            )
        elif step.error is not None:
            await self._fail(*step.error, charged=step.charged)
        elif refused is not None:
            await self._endings.failed(refusal(self._prompt_id, self._document.prompt, refused))
        elif result is not None:
            self._attempt.relay.last_words = None  # the stored words, which have the hint
            await self._attempt.conclude(with_hint(result, step.hint))
        return False

    @property
    def _has_ended(self) -> bool:
        """Whether its backend was done with it: heard, stored, or known since another job has begun there."""
        job, collecting = self._record.job, self._kit.member.collecting
        return self._record.rendered_ms is not None or job.state is JobState.COLLECTING or job.key in collecting

    async def _case(self, mishap: Mishap, why: str) -> Case:
        job, member = self._record.job, self._kit.member
        return Case(
            mishap,
            why,
            job.attempt,
            self._settings.job_attempts,
            member.key,
            began=self._record.began,
            repeated=self._harms.repeated(job.user_id, self._traits),
            unfetched=sum(entry[2].startswith(UNFETCHED) for entry in job.trail),
            avoid=frozenset(job.avoid),
            freed=job.freed,
            vram_mb=member.vram_mb,
            roomier=mishap is Mishap.MEMORY and await self._is_roomier(job, member),
        )

    async def _is_roomier(self, job: Job, member: Member) -> bool:
        asked = await asyncio.to_thread(demands, self._document.prompt, self._document.targets, self._pool.info)
        return is_roomier(asked, self._pool.members.values(), member, job, self._labels)

    async def _again(self, why: str) -> bool:
        """Free the backend's memory and make ready for another attempt there.

        Freed before it is noted: after a crash in between it is freed once more.
        """
        before = self._attempt
        with contextlib.suppress(BackendError):
            await free(self._kit.member)
            await asyncio.sleep(FREED_AFTER_S)
        await self._endings.again(why)
        self._before_ms += self._endings.used_ms
        with contextlib.suppress(BackendError):
            await before.forget()
        self._document.files = list(before.files.files)
        self._attempt = Attempt(self._kit, self._record, self._cancel)
        return True
