"""Backends that may be unfit: quarantine, and trial jobs that end it or begin it.

Quarantine is a column, so it holds over a restart and for every process that shares the database. Called by the probes,
one call per backend at a time; the job table is none of its business.
"""

import contextlib
from dataclasses import dataclass, field

from backend_pool.backends.change import Change
from backend_pool.backends.health import Health
from backend_pool.backends.member import Member
from backend_pool.backends.registry import Registry
from backend_pool.backends.trial import Busy, trial
from backend_pool.errors import BackendError
from backend_pool.workers.client import WorkerClient
from proxy.base.clock import monotonic_s
from proxy.base.errors import ClusterError
from proxy.base.logs import events
from proxy.base.repeated import Repeated
from proxy.base.settings import Settings

log = events(__name__)
often = Repeated(log)

LONGEST_PAUSE_S = 300.0
UNHEEDED = "it does not end a job that was cancelled"


@dataclass
class Trials:
    """What is known of one backend's trials. Times are monotonic seconds."""

    failures: int = 0
    next_s: float = 0.0
    last_s: float = field(default_factory=monotonic_s)
    said: str | None = None
    """What the latest one ended with, while it is quarantined."""
    unsaved: str | None = None
    """A quarantine that the database has yet to hear of."""


class Care:
    """Of one pool."""

    def __init__(self, registry: Registry, settings: Settings) -> None:
        self._registry = registry
        self._settings = settings
        self._trials: dict[int, Trials] = {}

    def is_quarantined(self, member: Member) -> bool:
        """Whether it gets no job before a trial has succeeded."""
        return member.row.quarantine is not None or self._of(member).unsaved is not None

    def words(self, member: Member) -> str | None:
        """Why it gets no jobs: what its latest trial said, else the reason of its quarantine."""
        if not self.is_quarantined(member):
            return None
        trials = self._of(member)
        return trials.said or trials.unsaved or member.row.quarantine

    async def quarantine(self, member: Member, why: str, *, restart: bool = False) -> None:
        """No new work from now on; a trial is due at once. `restart`: nothing but that helps it."""
        trials = self._of(member)
        if member.health is not Health.DOWN:
            member.health, member.error = Health.QUARANTINED, why
        trials.failures, trials.next_s, trials.unsaved, trials.said = 0, 0.0, why, None
        log.error("backend quarantined", backend=member.row.name, why=why)
        await self._save(member, trials)
        member.doubted.set()
        if restart:
            await self._restart(member)

    async def look(self, member: Member) -> None:
        """After an answered probe: what is due. Raises BackendGone when it stops answering."""
        trials = self._of(member)
        if trials.unsaved is not None:
            await self._save(member, trials)
        quarantined = self.is_quarantined(member)
        if not quarantined and member.leftovers.age_s > self._settings.unheeded_limit_s:
            await self.quarantine(member, UNHEEDED, restart=True)
        elif self._is_due(member, trials, quarantined=quarantined):
            await self._try(member, trials, quarantined=quarantined)

    def _is_due(self, member: Member, trials: Trials, *, quarantined: bool) -> bool:
        if member.busy or member.leftovers or monotonic_s() < trials.next_s:
            return False
        return quarantined or member.untried or self._is_idle_for_long(member, trials)

    def _is_idle_for_long(self, member: Member, trials: Trials) -> bool:
        every_s, since_s = self._settings.deep_probe_s, member.idle_since_s
        if not every_s or since_s is None or not member.idle:
            return False
        return monotonic_s() - max(since_s, trials.last_s) >= every_s

    async def _try(self, member: Member, trials: Trials, *, quarantined: bool) -> None:
        member.on_trial = True
        try:
            why = await trial(member, self._settings.trial_timeout_s)
        except Busy:
            trials.next_s = monotonic_s() + self._settings.probe_interval_s
            return
        finally:
            member.on_trial = False
            trials.last_s = monotonic_s()
        if why is None:
            member.untried = False
            if quarantined:
                await self._trust(member, trials)
            return
        if not quarantined:
            await self.quarantine(member, why)
        trials.said = why
        log.warning("trial failed", backend=member.row.name, why=why, failures=trials.failures + 1)
        pause_s = min(LONGEST_PAUSE_S, self._settings.probe_interval_s * 2**trials.failures)
        trials.failures, trials.next_s = trials.failures + 1, monotonic_s() + pause_s
        await self._restart(member)

    async def _trust(self, member: Member, trials: Trials) -> None:
        trials.failures, trials.unsaved = 0, None
        try:
            member.row = await self._registry.change(member.key, Change(trust=True))
        except ClusterError as error:  # somebody trusted it or removed it meanwhile, or the database is away
            often.warning("quarantine not ended", backend=member.row.name, error=error.message)
            return
        log.info("backend trusted again", backend=member.row.name)

    async def _save(self, member: Member, trials: Trials) -> None:
        assert trials.unsaved is not None
        try:
            member.row = await self._registry.quarantine(member.key, trials.unsaved)
            trials.unsaved = None
        except ClusterError as error:
            often.error("quarantine not stored yet", backend=member.row.name, error=error.message)

    async def _restart(self, member: Member) -> None:
        """Where somebody can: whoever keeps its process, or its worker pack, which takes a stuck job with it."""
        if member.restarts_by_flag:
            member.restart_wanted.set()
        elif member.worker is not None:
            with contextlib.suppress(BackendError):
                await WorkerClient(member.client).restart(force=True)

    def _of(self, member: Member) -> Trials:
        return self._trials.setdefault(member.key, Trials())
