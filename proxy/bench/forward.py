"""Measures forwarding: requests per second at 10 kB, direct, through our relay, and through configurable-http-proxy.

`python -m proxy.bench.forward [--seconds S] [--rounds N] [--chp PATH]`. Starts every server itself, on loopback, and
interleaves the candidates round by round, since a shared machine drifts; the forwarder's CPU time per request is the
figure that drifts least. Prints medians and ratios; asserts nothing.
"""

import argparse
import asyncio
import multiprocessing
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import cast

import uvicorn
from aiohttp import web

from proxy.access.origin import Scope
from proxy.base.settings import Settings
from proxy.forward.http import forward_http
from proxy.forward.relay_watch import Receive, Send
from proxy.forward.upstreams import Upstream, Upstreams
from proxy.http_server import ClientProtocol

BODY = os.urandom(10_000)
START_TIMEOUT_S = 20.0
ROUND_MARGIN_S = 30.0
COOKIE = "theme=dark; comfy_cluster_login=" + "x" * 64
REQUEST = (
    "GET /view?filename=a%2Fb.png&type=output HTTP/1.1\r\nhost: localhost\r\nuser-agent: Mozilla/5.0 (X11; Linux)\r\n"
    "accept: image/avif,image/webp,*/*;q=0.8\r\naccept-language: en-GB,en;q=0.5\r\naccept-encoding: gzip, deflate\r\n"
    f"referer: http://localhost/\r\nsec-fetch-site: same-origin\r\ncookie: {COOKIE}\r\n\r\n"
).encode()


@dataclass
class Candidate:
    """One way to the upstream."""

    name: str
    port: int
    pid: int
    rates: list[float] = field(default_factory=list)
    cpu_us: list[float] = field(default_factory=list)
    """Microseconds of the server's CPU time per request."""


class _Load(asyncio.Protocol):
    """One keep-alive connection that asks again as soon as it is answered, without parsing more than it must."""

    def __init__(self, counts: list[int], failed: Callable[[str], None]) -> None:
        self._counts = counts
        self._failed = failed
        self._due = -1
        self._head = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are no subclasses
        self._transport.write(REQUEST)

    def data_received(self, data: bytes) -> None:
        if self._due < 0:
            self._head += data
            end = self._head.find(b"\r\n\r\n")
            if end < 0:
                return
            if not self._head.startswith(b"HTTP/1.1 200"):
                self._failed(self._head[:60].decode("latin-1"))
                return
            at = self._head.lower().find(b"\r\ncontent-length:", 0, end)
            length = len(BODY) if at < 0 else int(self._head[at + 17 : self._head.find(b"\r\n", at + 2)])
            self._due = length - (len(self._head) - end - 4)
        else:
            self._due -= len(data)
        if self._due <= 0:
            self._counts[0] += 1
            self._due, self._head = -1, b""
            self._transport.write(REQUEST)


async def load(port: int, seconds: float, connections: int) -> float:
    """Requests per second answered on `port`. Raises RuntimeError at the first answer that is not 200."""
    loop = asyncio.get_running_loop()
    counts = [0]
    failure: asyncio.Future[None] = loop.create_future()

    def failed(why: str) -> None:
        if not failure.done():
            failure.set_exception(RuntimeError(f"port {port} answered {why}"))

    opened = [
        await loop.create_connection(lambda: _Load(counts, failed), "127.0.0.1", port) for _ in range(connections)
    ]
    started = time.perf_counter()
    await asyncio.wait({failure}, timeout=seconds)
    elapsed = time.perf_counter() - started
    for transport, _ in opened:
        transport.abort()
    if failure.done():
        await failure
    return counts[0] / elapsed


async def run(seconds: float, rounds: int, connections: int, chp: str | None) -> list[Candidate]:
    """Start the servers, measure in interleaved rounds, stop the servers."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-forward-")))
        unix = folder / "upstream.sock"
        direct, ours = free_port(), free_port()
        candidates = [
            Candidate("direct (aiohttp, TCP)", direct, _process(stack, _serve_upstream, direct, unix)),
            Candidate("our relay (Unix socket)", ours, _process(stack, _serve_relay, ours, unix)),
        ]
        if chp:
            candidates.append(_start_chp(stack, chp, direct))
        for candidate in candidates:
            await _until_open(candidate.port)
            await load(candidate.port, 1.0, connections)
        for _ in range(rounds):
            for candidate in candidates:
                before = _cpu_s(candidate.pid)
                async with asyncio.timeout(seconds + ROUND_MARGIN_S):
                    rate = await load(candidate.port, seconds, connections)
                candidate.rates.append(rate)
                candidate.cpu_us.append((_cpu_s(candidate.pid) - before) / max(1.0, rate * seconds) * 1e6)
        return candidates


def report(candidates: list[Candidate]) -> str:
    """Medians, spread, and ratios to the direct way."""
    base = statistics.median(candidates[0].rates)
    lines = [f"{'':26} {'req/s':>8} {'min':>8} {'max':>8} {'of direct':>10} {'CPU us/req':>11}"]
    for one in candidates:
        middle = statistics.median(one.rates)
        spread = f"{min(one.rates):8.0f} {max(one.rates):8.0f}"
        cpu = statistics.median(one.cpu_us)
        lines.append(f"{one.name:26} {middle:8.0f} {spread} {middle / base:10.2f} {cpu:11.0f}")
    if len(candidates) > 2:
        against = statistics.median(candidates[1].rates) / statistics.median(candidates[2].rates)
        lines.append(f"our relay serves {against:.2f} times what configurable-http-proxy does")
    return "\n".join(lines)


def free_port() -> int:
    """A port free on loopback now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def _until_open(port: int) -> None:
    async with asyncio.timeout(START_TIMEOUT_S):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.05)
            else:
                writer.close()
                return


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _process(stack: ExitStack, serve: Callable[[int, Path], None], port: int, unix: Path) -> int:
    process: BaseProcess = multiprocessing.get_context("spawn").Process(target=serve, args=(port, unix), daemon=True)
    process.start()
    stack.callback(process.join, 10.0)
    stack.callback(process.terminate)
    assert process.pid is not None
    return process.pid


def _start_chp(stack: ExitStack, chp: str, upstream: int) -> Candidate:
    port, api = free_port(), free_port()
    words = [chp, "--ip", "127.0.0.1", "--port", str(port), "--api-ip", "127.0.0.1", "--api-port", str(api)]
    words += ["--default-target", f"http://127.0.0.1:{upstream}", "--log-level", "error"]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL)
    stack.callback(process.wait, 10.0)
    stack.callback(process.terminate)
    return Candidate("configurable-http-proxy", port, process.pid)


def _serve_upstream(port: int, unix: Path) -> None:
    async def body(_request: web.Request) -> web.Response:
        return web.Response(body=BODY, content_type="image/png")

    async def serve() -> None:
        app = web.Application()
        app.router.add_get("/view", body)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        await web.UnixSite(runner, str(unix)).start()
        await asyncio.Event().wait()  # until the parent terminates this process

    asyncio.run(serve())


def _serve_relay(port: int, unix: Path) -> None:
    settings = Settings()
    upstream = Upstream("bench", unix, "http://session", {"X-Cluster-Session-Secret": "s" * 43})
    pools: list[Upstreams] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if not pools:
            pools.append(Upstreams(settings))
        await forward_http(scope, receive, send, upstream, pools[0], settings)

    config = uvicorn.Config(
        app,
        port=port,
        http=ClientProtocol,
        lifespan="off",
        access_log=False,
        server_header=False,
        log_level="error",
    )
    uvicorn.Server(config).run()


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m proxy.bench.forward", description=__doc__)
    parser.add_argument("--seconds", type=float, default=4.0, help="length of one measurement")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument(
        "--chp", default=shutil.which("configurable-http-proxy"), help="path of configurable-http-proxy"
    )
    given = parser.parse_args()
    if given.chp is None:
        sys.stderr.write("configurable-http-proxy is not installed (npm): measuring without it.\n")
    candidates = asyncio.run(run(given.seconds, given.rounds, given.connections, given.chp))
    sys.stdout.write(report(candidates) + "\n")


if __name__ == "__main__":
    main()
