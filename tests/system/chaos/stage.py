"""The cluster under trial: a proxy with engines of its own and engines it only knows by URL, its session host and
sessions, its users' sockets, its database; ways to hurt them.

Whatever is killed here and has nobody else to start it again is started again here, at the same port.
"""

import asyncio
import os
import random
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp

from proxy.access.accounts import add_now
from proxy.access.tokens import create_now
from proxy.base.clock import monotonic_s
from proxy.base.database import Database
from tests.cluster import Cluster, Person, processes_of, start_cluster
from tests.engines import Engine, start_engine
from tests.system.chaos.base import Base, Reader
from tests.system.inside import engines_at, pids
from tests.system.session_process import pid_of

STEPS = ["--step-ms", "10", "--model-load-ms", "20"]
SETTINGS = {
    "COMFY_CLUSTER_ENGINE_ARGS": '["--step-ms", "10", "--model-load-ms", "20", "--faults"]',
    "COMFY_CLUSTER_PROBE_INTERVAL_S": "0.5",
    "COMFY_CLUSTER_PROBE_TIMEOUT_S": "2",
    "COMFY_CLUSTER_BACKEND_DOWN_AFTER_S": "3",
    "COMFY_CLUSTER_JOB_POLL_S": "0.5",
    "COMFY_CLUSTER_CANCEL_GRACE_S": "2",
    "COMFY_CLUSTER_UPSTREAM_TIMEOUT_S": "5",
    "COMFY_CLUSTER_TRANSFER_TIMEOUT_S": "10",
    "COMFY_CLUSTER_JOB_ATTEMPTS": "8",
    "COMFY_CLUSTER_DRAIN_TIMEOUT_S": "2",
}
ORDER_TIMEOUT_S = 3.0
STRIKE_S = 6.0
LOOK_S = 0.1
ENDS_ANSWERS = frozenset({"crash", "hang_server"})


class Stage:
    """`await open()` first, `await close()` last. `down` is set while the proxy is meant not to answer."""

    def __init__(self, root: Path, base: Base, own: int = 2, known: int = 2) -> None:
        self.root = root
        self.base = base
        self.people: list[Person] = []
        self.cuts: list[Callable[[], None]] = []
        """Each breaks one tab's socket without a farewell."""
        self._own = own
        self._known = known
        self._port = _free_port()
        self._engines: dict[int, Engine] = {}
        self._ports: dict[int, int] = {}
        self.cluster: Cluster
        self.starts = 0
        self.troubles: list[str] = []

    async def open(self) -> None:
        """Start everything."""
        for number in range(self._known):
            self._engines[number] = await asyncio.to_thread(self._start_engine, number, 0)
            self._ports[number] = int(self._engines[number].url.rsplit(":", 1)[1])
        await self.start_proxy()

    async def close(self) -> int:
        """Stop the proxy, which stops what it started; its exit status."""
        status = await asyncio.to_thread(self.cluster.stop)
        for engine in self._engines.values():
            await asyncio.to_thread(engine.kill)
        return status

    def left(self) -> list[str]:
        """Engines of ours that still run, those of earlier starts included."""
        folders = [self.root / f"known-{number}" for number in self._engines]
        return [command for folder in folders for command in processes_of(folder).values()]

    def clean(self) -> None:
        """End whatever is left, for a trial that went wrong."""
        for engine in self._engines.values():
            engine.process.kill()
        self.base.close()
        if hasattr(self, "cluster"):
            self.cluster.clean()

    async def person(self, name: str) -> Person:
        """A new account."""
        self.people.append(await asyncio.to_thread(self._add, name))
        return self.people[-1]

    def _add(self, name: str) -> Person:
        db = Database(self.base.sqlalchemy_url(self.cluster.data_dir))
        try:
            row = add_now(db, name, f"secret of {name}")
            return Person(row.name, "", create_now(db, name, "test"), row.slug, row.key)
        finally:
            db.close()

    # -- the proxy -------------------------------------------------------------------------------------------------

    async def start_proxy(self) -> None:
        """Start it, or start it again on its data and port."""
        urls = [word for port in self._ports.values() for word in ("--backend", f"http://127.0.0.1:{port}")]
        more = ["--engines", str(self._own), "--port", str(self._port), *urls]
        self.cluster = await asyncio.to_thread(start_cluster, self.root, *more, env=self._settings())
        self.starts += 1

    async def kill_proxy(self) -> None:
        """kill -9, and a new one."""
        await asyncio.to_thread(self.cluster.kill)
        await self.start_proxy()

    async def stop_proxy(self) -> None:
        """SIGTERM, and a new one."""
        status = await asyncio.to_thread(self.cluster.stop)
        if status != 0:
            self.troubles.append(f"the proxy ended with status {status} on SIGTERM")
        await self.start_proxy()

    def _settings(self) -> dict[str, str]:
        url = self.base.url
        return SETTINGS if url is None else {**SETTINGS, "COMFY_CLUSTER_DATABASE_URL": url}

    # -- sessions --------------------------------------------------------------------------------------------------

    async def signal_host(self, number: signal.Signals) -> bool:
        """Send the session host a signal; False when there is none."""
        found = pids(self.cluster.data_dir, "user_sessions.host")
        for pid in found:
            os.kill(pid, number)
        return bool(found)

    async def signal_session(self, chance: random.Random, number: signal.Signals) -> int | None:
        """Send some user's session a signal; its process, None when nobody has one."""
        for person in chance.sample(self.people, len(self.people)):
            try:
                pid = await asyncio.to_thread(pid_of, self.cluster, person.slug)
                os.kill(pid, number)
            except (AssertionError, ProcessLookupError, ValueError):  # it is being started, or has just been ended
                continue
            return pid
        return None

    # -- engines ---------------------------------------------------------------------------------------------------

    def names(self) -> list[str]:
        """All engines."""
        return [*(f"known-{number}" for number in self._engines), *(f"engine-{n}" for n in range(1, self._own + 1))]

    def urls(self) -> dict[str, str]:
        """Where engines can be reached now; one that is being started again may be missing."""
        known = {f"known-{number}": f"http://127.0.0.1:{port}" for number, port in self._ports.items()}
        return known | engines_at(self.cluster)

    def pid(self, name: str) -> int | None:
        """The engine's process; None while it is dead."""
        kind, number = name.split("-")
        if kind == "known":
            process = self._engines[int(number)].process
            return process.pid if process.poll() is None else None
        return next(iter(pids(self.cluster.data_dir, f"--name {name} ")), None)

    async def strikes(self, **fault: Any) -> bool:
        """Arm a fault in all engines that answer until it strikes in one of them; False when no job came to it."""
        armed = [name for name in self.names() if self.pid(name) is not None and await self.order(name, **fault)]
        until, struck = monotonic_s() + STRIKE_S, set[str]()
        while armed and not struck and monotonic_s() < until:
            await asyncio.sleep(LOOK_S)
            struck = {name for name in armed if await self._has_struck(name, **fault)}
        for name in set(armed) - struck:
            await self.disarm(name)
        return bool(struck)

    async def _has_struck(self, name: str, **fault: Any) -> bool:
        answer = await self._ask("GET", name)
        if answer is None:
            return fault["fault"] in ENDS_ANSWERS
        return [each["count"] for each in answer["faults"] if each["fault"] == fault["fault"]] != [
            fault.get("count", 1)
        ]

    async def order(self, name: str, **fault: Any) -> bool:
        """Arm a fault; False when the engine does not answer."""
        return await self._ask("POST", name, json=fault) is not None

    async def disarm(self, name: str) -> None:
        """Disarm all its faults; one that is dead comes back without any."""
        await self._ask("DELETE", name)

    async def _ask(self, method: str, name: str, **options: Any) -> Any:
        """What the engine answers about its faults; None without an answer."""
        url = self.urls().get(name)
        timeout = aiohttp.ClientTimeout(total=ORDER_TIMEOUT_S)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout, trust_env=False) as http,
                http.request(method, f"{url}/engine/faults", **options) as answer,
            ):
                return await answer.json() if answer.status == 200 else None
        except (aiohttp.ClientError, TimeoutError):
            return None

    async def signal(self, name: str, number: signal.Signals) -> None:
        """Send an engine a signal."""
        pid = self.pid(name)
        if pid is not None:
            os.kill(pid, number)

    async def mend(self) -> None:
        """Let everything stopped go on, disarm all faults, and start engines that nobody else starts again."""
        for name in self.names():
            await self.signal(name, signal.SIGCONT)
        await self.signal_host(signal.SIGCONT)
        for number, engine in self._engines.items():
            if engine.process.poll() is not None:
                await asyncio.to_thread(engine.kill)  # reaps it
                self._engines[number] = await asyncio.to_thread(self._start_engine, number, self._ports[number])
        for name in self.urls():
            await self.disarm(name)

    def _start_engine(self, number: int, port: int) -> Engine:
        return start_engine(self.root / f"known-{number}", *STEPS, "--port", str(port), "--seed", str(number))

    # -- looking inside --------------------------------------------------------------------------------------------

    def database(self) -> Reader:
        """The proxy's database, to read only."""
        return self.base.open(self.cluster.data_dir)

    def rows(self, query: str, *params: object) -> list[Any]:
        """What the database answers."""
        reader = self.database()
        try:
            return list(reader.execute(query, params))
        finally:
            reader.close()

    def active(self) -> int:
        """Jobs that have not ended."""
        return len(self.unfinished())

    def unfinished(self) -> list[tuple[str, str, object]]:
        """Jobs that have not ended: id, state, and what became of them so far."""
        return self.rows(
            "SELECT prompt_id, state, trail FROM jobs WHERE state IN ('queued', 'assigned', 'running', 'collecting')"
        )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
