"""`comfy-cluster agent`: keeps the instances of a GPU machine and tells a server on another one of them.

The supervisor is here: what it is told by the server are facts, not orders, and a server that is away leaves everything
as it is. Nothing listens; the agent calls, with a worker's token.
"""

import asyncio
import json
from dataclasses import dataclass
from urllib.parse import urlsplit, urlunsplit

import aiohttp
from pydantic import ValidationError

from backend_pool.backends.phase import Phase
from backend_pool.comfy.client import said
from backend_pool.managed.agent_wire import PATH, PROTOCOL, AgentBeat, Answer, Told
from backend_pool.managed.crew import Crew
from backend_pool.managed.supervisor import Facts
from proxy.base.clock import monotonic_s
from proxy.base.errors import ClusterError, ConfigError, Unavailable
from proxy.base.logs import events
from proxy.base.redirects import refuse_redirects

log = events(__name__)

CALL_TIMEOUT_S = 10.0
FIRST_EVERY_S = 3.0
CHANGING_S = 0.3
LONGEST_PAUSE_S = 30.0
ANSWER_BYTES = 1024 * 1024


@dataclass(frozen=True)
class Where:
    """The server, and who speaks to it. `advertise`: URL at which the server reaches this machine, without a port."""

    server: str
    token: str
    agent_id: str
    name: str
    advertise: str | None = None


class Agent:
    """One machine's instances. `run` for ever; `stop` ends them."""

    def __init__(self, where: Where, crew: Crew) -> None:
        self._where = where
        self._crew = crew
        self._every_s = FIRST_EVERY_S
        self._urls: dict[str, str] = {}
        self._trouble: str | None = "not asked yet"
        self._failures = 0
        self._reported: dict[str, Phase] = {}

    async def run(self) -> None:
        """Look after them and report, for ever. Raises ConfigError when the server refuses the token at the start."""
        async with aiohttp.ClientSession(
            trust_env=False,
            timeout=aiohttp.ClientTimeout(total=CALL_TIMEOUT_S),
            trace_configs=[refuse_redirects()],
            headers={"Authorization": f"Bearer {self._where.token}"},
        ) as client:
            while True:
                try:
                    await self.round(client)
                    if not self._crew.changing:
                        await self._crew.trim_logs()
                except (OSError, Unavailable) as error:  # a full disk: the next round tries again
                    log.error("instances could not be looked after", error=str(error))
                await asyncio.sleep(self._pause_s())

    async def round(self, client: aiohttp.ClientSession) -> None:
        """See, report, decide, do."""
        ready = await self._crew.addresses()
        self._urls |= ready
        facts = await self._report(client)
        crashes = self._crew.crashes()
        orders = self._crew.look(facts, ready)
        await self._crew.note_crashes(crashes)
        for order in orders:
            if await self._crew.carry_out(order):
                self._urls.pop(order.name, None)
                planned = await asyncio.to_thread(self._crew.instances.recipe.planned, order.name)
                if planned is not None:
                    self._urls[order.name] = planned

    async def stop(self) -> None:
        """End all."""
        await self._crew.instances.forget_all()

    def _pause_s(self) -> float:
        news = self._reported != {name: fate.phase for name, fate in self._crew.supervisor.fates.items()}
        if (self._crew.changing or news) and not self._failures:
            return min(CHANGING_S, self._every_s)
        factor: int = 2 ** min(self._failures, 4)
        return min(self._every_s * factor, max(LONGEST_PAUSE_S, self._every_s))

    async def _report(self, client: aiohttp.ClientSession) -> dict[str, Facts]:
        """What the server knows; nothing where it cannot be asked."""
        unknown = {name: Facts() for name in self._crew.names}
        try:
            beat = await self._beat()
            answer = await self._post(client, beat)
        except ClusterError as error:
            self._failures += 1
            self._say(error.message)
            if isinstance(error, ConfigError) and self._failures == 1 and not self._urls:
                raise
            return unknown
        self._failures, self._every_s = 0, answer.every_s
        self._reported = {told.name: told.phase for told in beat.instances}
        refused = "; ".join(f"{name}: {reason}" for name, reason in sorted(answer.refused.items()))
        self._say(refused or None)
        known = {
            name: Facts(busy=told.busy, idle_s=told.idle_s, wanted=told.wanted, known=told.known, restart=told.restart)
            for name, told in answer.instances.items()
            if name in unknown
        }
        return unknown | known

    async def _beat(self) -> AgentBeat:
        instances = []
        for name in self._crew.names:
            worker = await asyncio.to_thread(self._crew.instances.recipe.worker, name)
            instances.append(self._told(name, worker))
        where = self._where
        return AgentBeat(protocol=PROTOCOL, agent_id=where.agent_id, name=where.name, instances=instances)

    def _told(self, name: str, worker: str | None) -> Told:
        fate, now = self._crew.supervisor.fates[name], monotonic_s()
        url = self._urls.get(name)
        port = None if url is None else urlsplit(url).port
        return Told(
            name=name,
            phase=fate.phase,
            since_s=max(0.0, now - fate.since),
            error=None if fate.error is None else fate.error[:1000],
            deaths=fate.deaths,
            adopted=fate.adopted,
            full=fate.full,
            retry_s=max(0.0, fate.retry_at - now) if fate.phase is Phase.CRASHED else None,
            port=port,
            url=None if url is None or self._at_peer(url) else advertised(url, self._where.advertise),
            worker_id=None if url is None else worker,
        )

    def _at_peer(self, url: str) -> bool:
        """Whether the server can tell its address by where the heartbeat comes from: its URL holds no password."""
        return self._where.advertise is None and urlsplit(url).username is None

    async def _post(self, client: aiohttp.ClientSession, beat: AgentBeat) -> Answer:
        """One heartbeat. Raises ConfigError for a refusal, Unavailable when nobody answers."""
        url = self._where.server + PATH
        try:
            async with client.post(url, data=beat.model_dump_json(), headers={"Content-Type": "application/json"}) as r:
                body = await r.content.read(ANSWER_BYTES)
                if r.status in (401, 403, 400, 404):
                    raise ConfigError(f"The server refuses the agent: {_said(body)}")
                if r.status != 200:
                    raise Unavailable(f"The server cannot take the heartbeat ({r.status}): {_said(body)}")
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Unavailable(
                f"The server {self._where.server} does not answer: {said(error, CALL_TIMEOUT_S)}"
            ) from error
        try:
            return Answer.model_validate_json(body)
        except ValidationError as error:
            raise Unavailable(f"{self._where.server} does not answer as a cluster proxy.") from error

    def _say(self, trouble: str | None) -> None:
        """One line per change."""
        if trouble == self._trouble:
            return
        self._trouble = trouble
        if trouble is None:
            log.info("reporting to the server", server=self._where.server)
        else:
            log.warning("the server does not take everything; going on", reason=trouble)


def _said(body: bytes) -> str:
    """The message of an error, or the beginning of what is none of the server's."""
    try:
        return str(json.loads(body)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return body[:200].decode(errors="replace")


def advertised(url: str, advertise: str | None) -> str:
    """An instance's URL as the server reaches it: the advertised scheme and host, its own port and password."""
    if advertise is None:
        return url
    own, far = urlsplit(url), urlsplit(advertise if "://" in advertise else f"http://{advertise}")
    host = far.hostname or ""
    login = own.netloc.rpartition("@")[0]
    netloc = f"{f'[{host}]' if ':' in host else host}:{own.port}"
    return urlunsplit((far.scheme, f"{login}@{netloc}" if login else netloc, far.path.rstrip("/"), "", ""))
