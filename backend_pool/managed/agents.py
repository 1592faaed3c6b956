"""The server's side of agents: takes their heartbeats, keeps their instances' rows, tells the pool and them.

What an agent said last lives in memory; each token speaks for its own instances only, within the limits of workers.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from sqlmodel import Session

from backend_pool.backends.phase import ManagedState, Phase
from backend_pool.backends.pool import Pool
from backend_pool.managed.agent_wire import PROTOCOL, AgentBeat, Answer, Known, Told
from backend_pool.managed.facts import Doings
from backend_pool.workers import agent_rows
from backend_pool.workers.address import check_address
from backend_pool.workers.limits import WorkerLimits
from backend_pool.workers.tokens import find
from proxy.base.backend_url import clean_url
from proxy.base.clock import monotonic_s, now_ms
from proxy.base.database import Database
from proxy.base.errors import BadInput, ClusterError, Conflict, NotAuthenticated
from proxy.base.logs import events

log = events(__name__)

SILENT_BEATS = 4


@dataclass
class Heard:
    """One instance's backend, and when its agent was heard of last (monotonic seconds)."""

    agent: str
    at_s: float


class Agents:
    """All agents of a server."""

    def __init__(self, db: Database, pool: Pool, heartbeat_s: float, clock: Callable[[], float] = monotonic_s) -> None:
        self._db = db
        self._pool = pool
        self._limits = WorkerLimits(heartbeat_s)
        self._doings = Doings()
        self._heard: dict[int, Heard] = {}
        self._refused: set[str] = set()
        self._clock = clock
        self.heartbeat_s = heartbeat_s

    async def beat(self, token: str, beat: AgentBeat, peer: str | None, own_port: int | None = None) -> Answer:
        """Take a heartbeat; the answer to it. Raises NotAuthenticated, BadInput, TooManyRequests."""
        if beat.protocol != PROTOCOL:
            raise BadInput("This agent is of another version than the server. Install the same one.")
        if len({told.name for told in beat.instances}) < len(beat.instances):
            raise BadInput("Two instances have the same name.")
        token_id = await self._db.read(lambda s: _token_id(s, token))
        self._limits.beats.take(token_id, "heartbeats")
        answer = Answer(every_s=self.heartbeat_s, instances={})
        for told in beat.instances:
            try:
                backend_id = await self._backend(token_id, beat, told, peer, own_port)
            except (BadInput, Conflict) as error:
                answer.refused[told.name] = error.message
                self._log_refusal(f"{beat.agent_id}/{told.name}", error)
                continue
            if backend_id is None:  # it has no address yet: started once it will have one
                answer.instances[told.name] = Known(known=False)
                continue
            self._heard[backend_id] = Heard(beat.name, self._clock())
            self._tell(backend_id, told)
            answer.instances[told.name] = self._known(backend_id)
        return answer

    async def watch(self) -> None:
        """Notice agents that fall silent, for ever."""
        while True:
            self.look()
            await asyncio.sleep(self.heartbeat_s)

    def look(self) -> None:
        """Forget what silent agents have said: what runs is probed as any backend, what sleeps cannot be woken."""
        silent_s = SILENT_BEATS * self.heartbeat_s
        for backend_id, heard in list(self._heard.items()):
            if self._clock() - heard.at_s <= silent_s:
                continue
            del self._heard[backend_id]
            told = self._pool.managed(backend_id)
            if told is None or told.state is Phase.RUNNING:
                self._pool.manage(backend_id, None)
                continue
            error = f"its agent {heard.agent} has not been heard of for {silent_s:.0f} s"
            log.warning("agent is silent", agent=heard.agent, backend=backend_id)
            self._pool.manage(backend_id, ManagedState(Phase.CRASHED, now_ms(), error))

    async def _backend(
        self, token_id: int, beat: AgentBeat, told: Told, peer: str | None, own_port: int | None
    ) -> int | None:
        key = f"{beat.agent_id}/{told.name}"
        url = _address(told, peer)
        found = await self._db.read(lambda s: agent_rows.standing(s, token_id, key, url, told.worker_id))
        if found is not None or url is None:
            return found
        await check_address(url, own_port)
        self._limits.registrations.take(token_id, "registrations")
        labels = [f"{beat.name}-{told.name}", f"{beat.name}-{beat.agent_id[:8]}-{told.name}"]
        worker_id = told.worker_id
        backend_id = await self._db.write(
            lambda s: agent_rows.register(s, token_id, key, labels=labels, url=url, worker_id=worker_id)
        )
        log.info("agent's instance registered", agent=beat.name, instance=told.name, backend=backend_id)
        self._tell(backend_id, told)
        await self._pool.refresh()
        return backend_id

    def _tell(self, backend_id: int, told: Told) -> None:
        ms = now_ms()
        retry_ms = None if told.retry_s is None else ms + round(told.retry_s * 1000)
        since_ms = ms - round(told.since_s * 1000)
        state = ManagedState(told.phase, since_ms, told.error, told.deaths, retry_ms, told.adopted, told.full)
        self._pool.manage(backend_id, state)

    def _known(self, backend_id: int) -> Known:
        member = self._pool.member(backend_id)
        facts = self._doings.of(member, backend_id, self._clock())
        name = "" if member is None else member.row.name
        return Known(
            backend=name,
            busy=facts.busy,
            idle_s=facts.idle_s,
            wanted=facts.wanted,
            known=facts.known,
            restart=facts.restart,
        )

    def _log_refusal(self, key: str, error: ClusterError) -> None:
        """Once: it says the same with every heartbeat."""
        if key not in self._refused and len(self._refused) < 1000:
            self._refused.add(key)
            log.warning("agent's instance refused", instance=key, reason=error.message)


def _address(told: Told, peer: str | None) -> str | None:
    if told.url is not None:
        return clean_url(told.url)
    if told.port is None:
        return None
    if peer is None:
        raise BadInput("Give the agent --advertise: its address cannot be seen from here.")
    return clean_url(f"http://[{peer}]:{told.port}" if ":" in peer else f"http://{peer}:{told.port}")


def _token_id(s: Session, token: str) -> int:
    found = find(s, token)
    if found is None or found.id is None:
        raise NotAuthenticated("This worker's token does not count (any more). Make one: worker-pack token.")
    return found.id
