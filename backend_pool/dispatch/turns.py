"""Who is next: keeps placement's line in step with the front of the queue, the groups and what is known of jobs.

Asks the line, and tells it what was placed and what became of it. Places nothing itself.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice

from backend_pool.backends.member import Member
from backend_pool.books.shares import Shares
from backend_pool.dispatch.comebacks import Comebacks
from backend_pool.dispatch.loads import Loads
from backend_pool.dispatch.matching import Matching
from backend_pool.dispatch.queue_mirror import QueueMirror, in_rounds
from backend_pool.dispatch.virtual_times import VirtualTimes
from backend_pool.forecasts.estimates import Estimates
from backend_pool.jobs.queue_reads import QueueReads
from backend_pool.model import Job
from backend_pool.placement.line import Line
from backend_pool.placement.values import NOWHERE, Choice, Policy, Spot, Waiting
from proxy.base.clock import now_ms

LEARN_AT_ONCE = 64
"""Jobs whose prompts are read between two placements."""
ENTER_AT_ONCE = 256
"""Jobs that are put into the line, or judged anew there, between two placements."""


class Turns:
    """The line, fed from the mirror."""

    def __init__(
        self,
        reads: QueueReads,
        *,
        mirror: QueueMirror,
        matching: Matching,
        shares: Shares,
        estimates: Estimates,
        policy: Policy,
    ) -> None:
        self._mirror = mirror
        self._matching = matching
        self._shares = shares
        self._estimates = estimates
        self.line = Line(policy)
        self._comebacks = Comebacks(policy.affinity_s)
        self._unread: dict[int, Job] = {}
        """Jobs at the front to be read, or to be judged anew before they may be placed."""
        self._sending: set[int] = set()
        self.placed: dict[int, Waiting] = {}
        """What is on its way to a backend, executes there, or has files on their way home."""
        self._bringing: dict[int, set[int]] = {}
        """By worker those of them whose files travel from it."""
        self.times = VirtualTimes(reads, self.line, shares)
        self._seats: set[int] = set()

    @property
    def behind(self) -> bool:
        """Whether jobs at the front wait to be read."""
        return bool(self._unread)

    async def begin(self, users: Iterable[int]) -> None:
        """Begin where the last process stopped; once. `users` have jobs that wait or run. Raises Unavailable."""
        if self.times.known:
            return
        stored = await self.times.load()
        # The least goes first: whoever comes later is put at the least of those who are there.
        for user_id in sorted(users, key=lambda user: stored.get(user, 0.0)):
            self.times.introduce(user_id)
            self.line.add(Waiting(-user_id, user_id, 0.0, NOWHERE))
            self._seats.add(-user_id)

    async def sync(self) -> None:
        """Take in what has changed at the front of the queue; reads some prompts. Raises Unavailable."""
        changes = await self._mirror.refresh(self.line.virtual_s)
        for seq in changes.went:
            self._unread.pop(seq, None)
            self.line.remove(seq)
        self._unread |= {job.key: job for job in in_rounds(changes.came)}
        self._comebacks.keep_unread(lambda seq, user: seq in self._unread or self._mirror.is_stale(user))
        if self._matching.look():
            self._reconsider(self._mirror.users)
        self._reconsider(self._comebacks.over(self._mirror.__contains__, now_ms() / 1000))
        await self._read()
        if not self._unread and not self._mirror.stale:
            self._give_up_seats()

    def know(self, users: Iterable[int]) -> None:
        """Their shares, or what blocks them, may have changed."""
        for user_id in users:
            self.line.know(user_id, self._shares.share(user_id))
        self._reconsider(users)

    def next(self, spots: Iterable[Spot]) -> Choice | None:
        """The next job, and where."""
        return self.line.next(spots, now_ms() / 1000)

    def started(self, choice: Choice) -> Job | None:
        """The choice is carried out: its row as it was read; None when it has gone meanwhile, or has to be judged."""
        if choice.seq in self._unread:
            self.line.change(choice.seq, NOWHERE)
            return None
        job = self._mirror.take(choice.seq)
        if job is None:
            self.line.remove(choice.seq)
            return None
        self.placed[job.key] = self._waiting(job)
        self.line.started(choice.seq, choice.spot, now_ms() / 1000)
        return job

    def resumed(self, job: Job, backend_id: int) -> None:
        """A job that an earlier process placed runs, which counts for its user's limit and turn."""
        if job.key in self.placed:
            return
        self._mirror.take(job.key)
        waiting = self.placed[job.key] = Waiting(job.key, job.user_id, job.number, NOWHERE, priority=job.priority)
        self.times.introduce(job.user_id)
        self.line.add(waiting)
        self.line.started(job.key, backend_id, now_ms() / 1000)

    def ended(self, seq: int, used_s: float) -> None:
        """It uses its backend no more; saying so again does nothing."""
        waiting = self._over(seq)
        if waiting is not None:
            self.line.ended(seq, used_s)

    def returned(self, seq: int, used_s: float = 0.0) -> None:
        """It goes back into the queue."""
        waiting = self._over(seq)
        if waiting is not None:
            self.line.returned(waiting, used_s)
            self.line.remove(seq)  # until its row has been read again: it may need other backends now
            self._mirror.touch(waiting.user_id)
            self._comebacks.returned(seq, waiting.user_id)
            self._reconsider([waiting.user_id])

    def bring(self, seq: int, worker_id: int) -> None:
        """Files of a placed job are on their way home from a worker, until the job has ended: it gets none of that
        user's meanwhile, which would be sent there what the user has without them."""
        if seq in self.placed:
            self._bringing.setdefault(worker_id, set()).add(seq)

    def gone(self, seq: int) -> None:
        """A waiting job was cancelled."""
        self._unread.pop(seq, None)
        self._mirror.take(seq)
        self.line.remove(seq)

    def look_deeper(self) -> None:
        """Backends are idle: look further into the queues of those who may run more."""
        running = Counter(waiting.user_id for waiting in self.placed.values())
        for user_id in list(self._mirror.users):
            limit = self._shares.share(user_id).running_limit
            if running[user_id] < limit and self._shares.blocked(user_id) is None:
                self._mirror.deepen(user_id)

    def after(self, members: Iterable[Member]) -> Iterator[tuple[Member, Job]]:
        """For each of these busy backends the job that it gets next, if all of them ended theirs now, in that order."""
        line, now_s = self.line.copy(), now_ms() / 1000
        busy = list(members)
        for member in busy:
            if member.job in self.placed:
                line.ended(member.job, 0.0)
        for member in busy:
            running = self.placed.get(member.job or 0)
            spot = self.spot(member)
            if running is not None:
                warm = spot.warm | running.kind.models
                spot = replace(spot, warm=warm, user_id=running.user_id, graph=running.graph)
            choice = line.next([spot], now_s)
            job = None if choice is None else self._mirror.get(choice.seq)
            if choice is not None and job is not None:
                line.started(choice.seq, choice.spot, now_s)
                yield member, job

    @property
    def sending(self) -> bool:
        """Whether some job at the front may have files to send."""
        self._sending = {seq for seq in self._sending if seq in self._mirror}
        return bool(self._sending)

    def rendered(self, seq: int, used_s: float) -> None:
        """Its backend has ended it; it counts for its user's limit until its files are home."""
        if seq in self.placed:
            self.times.rendered(seq, used_s)

    async def store(self) -> None:
        """Put down virtual times that changed without the end of a job. Raises Unavailable."""
        await self.times.store(self._mirror.users)

    def spot(self, member: Member) -> Spot:
        """A backend as placement sees it."""
        warm = member.warmth
        return Spot(
            member.key,
            warm=warm.models,
            user_id=warm.user_id,
            graph=warm.graph,
            load_s=Loads(self._estimates.timings, member.device),
            reserved=self._shares.reserved(member.key, member.row.labels, now_ms()),
            closed=frozenset(self.placed[seq].user_id for seq in self._bringing.get(member.key, ())),
            failed=member.failed,
            done=member.done,
        )

    def heads(self) -> list[Job]:
        """The next job of each user who has none on a backend."""
        running = {waiting.user_id for waiting in self.placed.values()}
        return [job for job in self._mirror.heads() if job.user_id not in running]

    def _over(self, seq: int) -> Waiting | None:
        waiting = self.placed.pop(seq, None)
        self.times.over(seq, None if waiting is None else waiting.user_id)
        for brought in self._bringing.values():
            brought.discard(seq)
        return waiting

    def _reconsider(self, users: Iterable[int]) -> None:
        """Their jobs may run elsewhere now, or need other things; in parts, for there may be thousands of them."""
        for user_id in users:
            self._unread |= self._mirror.front(user_id)

    async def _read(self) -> None:
        batch = list(islice(self._unread, ENTER_AT_ONCE))
        unread = list(islice((seq for seq in batch if not self._matching.read(seq)), LEARN_AT_ONCE))
        if unread:
            batch = batch[: batch.index(unread[-1]) + 1]
        gone = await self._matching.learn(unread) if unread else set()
        for seq in batch:
            waits = self._unread.pop(seq, None) is not None
            if seq in gone:
                self._mirror.take(seq)
                self.line.remove(seq)
            elif waits and (job := self._mirror.get(seq)) is not None:  # its row may have been read again meanwhile
                self._enter(job)

    def _enter(self, job: Job) -> None:
        """Put a job that has been read into the line, or take it out while its user is blocked."""
        if not self._matching.read(job.key) or self._comebacks.behind(job):
            self._unread.setdefault(job.key, job)
            return
        share = self._shares.share(job.user_id)
        if self._comebacks.read(job, self._matching.harmed(job, share), now_ms() / 1000):
            self._reconsider([job.user_id])
            self._unread.pop(job.key, None)
        if self._shares.blocked(job.user_id) is not None:
            self.line.remove(job.key)
            return
        waiting = self._waiting(job)
        if self._matching.sends(job.key):
            self._sending.add(job.key)
        if job.key in self.line:
            self.line.change(job.key, waiting.kind, waiting.work_s)
            return
        self.times.introduce(job.user_id)
        self.line.add(waiting)

    def _waiting(self, job: Job) -> Waiting:
        traits = self._matching.traits(job.key)
        return Waiting(
            seq=job.key,
            user_id=job.user_id,
            number=job.number,
            kind=self._matching.kind(job, self._shares.share(job.user_id), self._comebacks.left_by(job.user_id)),
            lane=job.lane,
            priority=job.priority,
            since_s=job.created_ms / 1000,
            expected_s=self._estimates.timings.expect_s(traits) or 0.0,
            graph=traits.graph,
            avoid=frozenset(job.avoid),
            work_s=self._estimates.work_s(traits),
        )

    def _give_up_seats(self) -> None:
        for seq in self._seats:
            self.line.remove(seq)
        self._seats.clear()
