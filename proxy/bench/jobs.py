"""Measures what the cluster adds to a job: the same prompt at a backend directly and through a server, in turns.

Starts a server of its own in a temporary directory, with an embedded engine or in front of the ComfyUI given. Each job
has a new seed, so that no cache answers it. A job's time runs from POST /prompt to the end marker on the socket.
"""

import asyncio
import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from backend_pool.worker_pack.config import Config, save
from backend_pool.workers.tokens import create_now as create_worker_token
from proxy.base.clock import monotonic_s
from proxy.base.database import Database, sqlite_url
from proxy.base.errors import Unavailable
from proxy.base.names import new_id
from proxy.bench.server import START_TIMEOUT_S, account, launch, ready

JOB_TIMEOUT_S = 60.0
WARM_UP = 5
USER = "bench"


@dataclass
class Series:
    """Times of one way, in milliseconds."""

    name: str
    times_ms: list[float] = field(default_factory=list)

    def quantile(self, share: float) -> float:
        """The time that `share` of the jobs stay below."""
        return sorted(self.times_ms)[min(len(self.times_ms) - 1, int(share * len(self.times_ms)))]

    @property
    def median(self) -> float:
        """p50."""
        return statistics.median(self.times_ms)


@dataclass(frozen=True)
class Target:
    """Where prompts go."""

    url: str
    headers: dict[str, str]


def trivial_prompt(number: int) -> dict[str, Any]:
    """A job that costs a backend next to nothing: a 64x64 picture, previewed; the number makes it new."""
    return {
        "1": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": number}},
        "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
    }


async def measure(jobs: int, backend: str | None, *, pack: bool = False) -> list[Series]:
    """`jobs` jobs each way, one after the other, the ways taking turns; `pack` adds engines with the worker pack."""
    async with contextlib.AsyncExitStack() as stack:
        direct, through = await stack.enter_async_context(_server(backend))
        ways = {"direct": direct, "through the cluster": through}
        for name, shared in (("worker pack, sent", False), ("worker pack, shared", True)) if pack else ():
            ways[name] = await stack.enter_async_context(_worker_server(shared))
        series = [Series(name) for name in ways]
        lanes = [await stack.enter_async_context(_lane(target)) for target in ways.values()]
        for number in range(jobs + WARM_UP):
            for place, (way, lane) in enumerate(zip(series, lanes, strict=True), start=1):
                took_ms = await lane.job(trivial_prompt(len(ways) * number + place))
                if number >= WARM_UP:
                    way.times_ms.append(took_ms)
    return series


def report(series: list[Series]) -> str:
    """The table."""
    direct, *others = series
    lines = [f"{'job time':<22}{'p50 ms':>9}{'p95 ms':>9}{'added':>9}{'added':>9}{'ratio':>9}{'ratio':>9}"]
    lines.append(f"{direct.name:<22}{direct.median:>9.1f}{direct.quantile(0.95):>9.1f}")
    for way in others:
        at = ((way.median, direct.median), (way.quantile(0.95), direct.quantile(0.95)))
        times = "".join(f"{through:>9.1f}" for through, _ in at)
        added = "".join(f"{through - alone:>9.1f}" for through, alone in at)
        ratio = "".join(f"{through / alone:>9.2f}" for through, alone in at)
        lines.append(f"{way.name:<22}{times}{added}{ratio}")
    return "\n".join(lines)


class Lane:
    """One client at one target, with its socket."""

    def __init__(self, http: aiohttp.ClientSession, target: Target, socket: aiohttp.ClientWebSocketResponse, sid: str):
        self._http = http
        self._target = target
        self._socket = socket
        self._sid = sid

    async def job(self, prompt: dict[str, Any]) -> float:
        """Run one job; milliseconds until its end marker. Raises Unavailable when it fails."""
        began = monotonic_s()
        async with self._http.post(
            f"{self._target.url}/prompt", json={"prompt": prompt, "client_id": self._sid}
        ) as response:
            answer = await response.json()
            if response.status != 200:
                raise Unavailable(f"{self._target.url} refused the bench's prompt.", json.dumps(answer))
        async with asyncio.timeout(JOB_TIMEOUT_S):
            while True:
                frame = await self._socket.receive()
                if frame.type is aiohttp.WSMsgType.TEXT and _ends(frame.data, answer["prompt_id"]):
                    return (monotonic_s() - began) * 1000
                if frame.type not in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY):
                    raise Unavailable(f"{self._target.url} closed its socket.")


def _ends(text: str, prompt_id: str) -> bool:
    message = json.loads(text)
    data = message.get("data", {})
    if message["type"] == "execution_error":
        raise Unavailable("A job of the bench failed.", str(data.get("exception_message")))
    return message["type"] == "executing" and data.get("node") is None and data.get("prompt_id") == prompt_id


@asynccontextmanager
async def _lane(target: Target) -> AsyncIterator[Lane]:
    sid = new_id()
    async with (
        aiohttp.ClientSession(headers=target.headers, trust_env=False) as http,
        http.ws_connect(f"{target.url}/ws?clientId={sid}", max_msg_size=0) as socket,
    ):
        yield Lane(http, target, socket, sid)


@asynccontextmanager
async def _server(backend: str | None) -> AsyncIterator[tuple[Target, Target]]:
    """A server of our own; where its backend and where it can be reached."""
    with tempfile.TemporaryDirectory(prefix="comfy-bench-") as folder:
        data_dir = Path(folder) / "data"
        pool = ["--backend", backend] if backend else ["--engines", "1"]
        command = [sys.executable, "-m", "proxy", "up", "--port", "0", "--data-dir", str(data_dir), *pool]
        process = await asyncio.to_thread(launch, command, Path(folder) / "log")
        try:
            url = await asyncio.wait_for(asyncio.to_thread(ready, process), START_TIMEOUT_S)
            token = await asyncio.to_thread(_token, data_dir)
            through = Target(url, {"Authorization": f"Bearer {token}"})
            await _until_checked(through)
            yield Target(backend or (data_dir / "run" / "engine-1.url").read_text().strip(), {}), through
        finally:
            process.terminate()
            await asyncio.to_thread(process.wait, 60)


@asynccontextmanager
async def _worker_server(shared: bool) -> AsyncIterator[Target]:
    """A server whose one backend is an engine with the worker pack, which has registered itself."""
    with tempfile.TemporaryDirectory(prefix="comfy-bench-") as folder:
        data_dir, settings = Path(folder) / "data", Path(folder) / "pack.json"
        command = [sys.executable, "-m", "proxy", "up", "--port", "0", "--data-dir", str(data_dir), "--engines", "0"]
        process = await asyncio.to_thread(launch, command, Path(folder) / "log")
        engine: subprocess.Popen[bytes] | None = None
        try:
            url = await asyncio.wait_for(asyncio.to_thread(ready, process), START_TIMEOUT_S)
            token, worker_token = await asyncio.to_thread(_tokens, data_dir)
            users = str((data_dir / "users").resolve()) if shared else None
            save(settings, Config(url, worker_token, "bench-worker", "bench", shared_data=users))
            command = [sys.executable, "-m", "backend_pool.engine", "--base-dir", f"{folder}/engine"]
            engine = await asyncio.to_thread(
                launch, [*command, "--worker-pack", str(settings)], Path(folder) / "engine.log"
            )
            through = Target(url, {"Authorization": f"Bearer {token}"})
            await _until_checked(through)
            await _until_worker(through, shared)
            yield through
        finally:
            for started in (engine, process):
                if started is not None:
                    started.terminate()
                    await asyncio.to_thread(started.wait, 60)


def _tokens(data_dir: Path) -> tuple[str, str]:
    db = Database(sqlite_url(data_dir / "cluster.db"))
    try:
        return _user_token(db), create_worker_token(db, USER)
    finally:
        db.close()


def _user_token(db: Database) -> str:
    return account(db, USER, admin=True)[1]  # an admin asks whether a worker is there


def _token(data_dir: Path) -> str:
    db = Database(sqlite_url(data_dir / "cluster.db"))
    try:
        return _user_token(db)
    finally:
        db.close()


async def _until_checked(target: Target) -> None:
    """Wait until the pool knows its nodes."""
    async with aiohttp.ClientSession(headers=target.headers, trust_env=False) as http:
        async with asyncio.timeout(START_TIMEOUT_S):
            while True:
                async with http.get(f"{target.url}/object_info/EmptyImage") as response:
                    if await response.json():
                        return
                await asyncio.sleep(0.1)


async def _until_worker(target: Target, shared: bool) -> None:
    """Wait until the worker is known as one; its second heartbeat proves that it sees the users' directories."""
    async with aiohttp.ClientSession(headers=target.headers, trust_env=False) as http:
        async with asyncio.timeout(START_TIMEOUT_S):
            while True:
                async with http.get(f"{target.url}/cluster/api/v1/admin/backends") as response:
                    found = (await response.json())["backends"]
                if any((one["worker"] or {}).get("shared") is shared for one in found):
                    return
                await asyncio.sleep(0.1)
