"""The cluster under trial: a proxy with engines of its own and engines it only knows by URL; ways to hurt them.

Whatever is killed here and has nobody else to start it again is started again here, at the same port.
"""

import asyncio
import os
import random
import signal
import socket
import sqlite3
from pathlib import Path
from typing import Any

import aiohttp

from tests.cluster import Cluster, Person, processes_of, start_cluster
from tests.engines import Engine, start_engine
from tests.system.inside import engine_urls, pids

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


class Stage:
    """`await open()` first, `await close()` last. `down` is set while the proxy is meant not to answer."""

    def __init__(self, root: Path, own: int = 2, known: int = 2) -> None:
        self.root = root
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
        if hasattr(self, "cluster"):
            self.cluster.clean()

    async def person(self, name: str) -> Person:
        """A new account."""
        return await asyncio.to_thread(self.cluster.user, name)

    # -- the proxy -------------------------------------------------------------------------------------------------

    async def start_proxy(self) -> None:
        """Start it, or start it again on its data and port."""
        urls = [word for port in self._ports.values() for word in ("--backend", f"http://127.0.0.1:{port}")]
        more = ["--engines", str(self._own), "--port", str(self._port), *urls]
        self.cluster = await asyncio.to_thread(start_cluster, self.root, *more, env=SETTINGS)
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

    # -- engines ---------------------------------------------------------------------------------------------------

    def names(self) -> list[str]:
        """All engines."""
        return [*(f"known-{number}" for number in self._engines), *(f"engine-{n}" for n in range(1, self._own + 1))]

    def urls(self) -> dict[str, str]:
        """Where engines can be reached now; one that is being started again may be missing."""
        known = {f"known-{number}": f"http://127.0.0.1:{port}" for number, port in self._ports.items()}
        own = engine_urls(self.cluster)
        return known | {f"engine-{number}": url for number, url in enumerate(own, start=1)}

    def pid(self, name: str) -> int | None:
        """The engine's process; None while it is dead."""
        kind, number = name.split("-")
        if kind == "known":
            process = self._engines[int(number)].process
            return process.pid if process.poll() is None else None
        return next(iter(pids(self.cluster.data_dir, f"--name {name} ")), None)

    async def any_takes(self, chance: random.Random, **fault: Any) -> bool:
        """Arm a fault in an engine that answers; False when none does."""
        for name in chance.sample(self.names(), len(self.names())):
            if self.pid(name) is not None and await self.order(name, **fault):
                return True
        return False

    async def order(self, name: str, **fault: Any) -> bool:
        """Arm a fault; False when the engine does not answer."""
        url = self.urls().get(name)
        timeout = aiohttp.ClientTimeout(total=ORDER_TIMEOUT_S)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout, trust_env=False) as http,
                http.post(f"{url}/engine/faults", json=fault) as answer,
            ):
                return answer.status == 200
        except (aiohttp.ClientError, TimeoutError):
            return False

    async def signal(self, name: str, number: signal.Signals) -> None:
        """Send an engine a signal."""
        pid = self.pid(name)
        if pid is not None:
            os.kill(pid, number)

    async def mend(self) -> None:
        """Let everything stopped go on, disarm all faults, and start engines that nobody else starts again."""
        for name in self.names():
            await self.signal(name, signal.SIGCONT)
        for number, engine in self._engines.items():
            if engine.process.poll() is not None:
                await asyncio.to_thread(engine.kill)  # reaps it
                self._engines[number] = await asyncio.to_thread(self._start_engine, number, self._ports[number])
        timeout = aiohttp.ClientTimeout(total=ORDER_TIMEOUT_S)
        async with aiohttp.ClientSession(timeout=timeout, trust_env=False) as http:
            for url in self.urls().values():
                try:
                    async with http.delete(f"{url}/engine/faults") as answer:
                        await answer.read()
                except (aiohttp.ClientError, TimeoutError):
                    continue  # it is dead, and comes back without faults

    def _start_engine(self, number: int, port: int) -> Engine:
        return start_engine(self.root / f"known-{number}", *STEPS, "--port", str(port), "--seed", str(number))

    # -- looking inside --------------------------------------------------------------------------------------------

    def database(self) -> sqlite3.Connection:
        """The proxy's database, to read only."""
        return sqlite3.connect(f"file:{self.cluster.data_dir / 'cluster.db'}?mode=ro", uri=True, timeout=10)

    def in_state(self, state: str) -> int:
        """How many jobs are in a state; 'ended' counts final ones."""
        states = ("succeeded", "failed", "cancelled") if state == "ended" else (state,)
        connection = self.database()
        try:
            marks = ", ".join("?" * len(states))
            return int(connection.execute(f"SELECT count(*) FROM jobs WHERE state IN ({marks})", states).fetchone()[0])
        finally:
            connection.close()

    def active(self) -> int:
        """Jobs that have not ended."""
        return sum(self.in_state(state) for state in ("queued", "assigned", "running", "collecting"))

    def unfinished(self) -> list[tuple[str, str, str]]:
        """Jobs that have not ended: id, state, and what became of them so far."""
        query = (
            "SELECT prompt_id, state, trail FROM jobs WHERE state IN ('queued', 'assigned', 'running', 'collecting')"
        )
        connection = self.database()
        try:
            return connection.execute(query).fetchall()
        finally:
            connection.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
