"""Runs one server on one socket: uvicorn around the application, signals, the line that says it is ready."""

import asyncio
import contextlib
import signal
import socket
from collections.abc import Callable
from types import FrameType

import uvicorn

from backend_pool.jobs.lease import LeaseLost
from proxy import lifespan
from proxy.app import Cluster
from proxy.base.errors import ConfigError
from proxy.base.settings import Settings
from proxy.http_server import ClientProtocol, ClientWebSocket

BACKLOG = 1024
CLIENT_FRAME_MB = 16
"""Largest message a client may send over a forwarded socket: extensions send commands, files go by HTTP. Each open
socket may cost this much before anybody reads it; what sessions and backends send has `max_frame_mb`."""


def listen(settings: Settings) -> socket.socket:
    """The bound socket. Raises ConfigError naming what to do for a taken port or a foreign address."""
    try:
        family = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)[0][0]
        with contextlib.ExitStack() as stack:
            bound = stack.enter_context(socket.socket(family, socket.SOCK_STREAM))
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            # A browser that stops reading without closing must not keep its socket for ever; accepted sockets
            # inherit it.
            bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(settings.transfer_timeout_s * 1000))
            bound.bind((settings.host, settings.port))
            bound.listen(BACKLOG)
            stack.pop_all()
    except OSError as error:
        raise ConfigError(
            f"{settings.host}:{settings.port} cannot be listened on: {error.strerror or error}. "
            "Choose another --port or --host, or stop what uses it."
        ) from error
    return bound


async def serve(cluster: Cluster, bound: socket.socket, ready: Callable[[str], None]) -> None:
    """Serve until SIGTERM or Ctrl-C, then drain and take everything down; `ready` is told the URL once it answers.

    Raises LeaseLost when another server has taken over meanwhile: then as after SIGTERM.
    """
    loop = asyncio.get_running_loop()
    server = AnnouncingServer(ready, _config(cluster))
    this = asyncio.current_task()
    assert this is not None
    starting = True

    def end(_number: int, _frame: FrameType | None) -> None:
        # Installed once and kept: there is no moment at which a signal would end us and leave our processes behind.
        # uvicorn puts its own handlers over these while it serves, and raises what it caught again afterwards.
        server.should_exit = True
        if starting:
            loop.call_soon_threadsafe(this.cancel)

    def leave() -> None:
        server.should_exit = True

    for number in stop_signals():
        signal.signal(number, end)
    lease = cluster.work.lease
    lease.on_lost.append(leave)
    try:
        await lifespan.start(cluster, own_url(bound))
        starting = False
        await server.serve(sockets=[bound])
        if lease.lost:
            raise LeaseLost
    finally:
        starting = False
        await lifespan.stop(cluster)


def _config(cluster: Cluster) -> uvicorn.Config:
    settings = cluster.settings
    return uvicorn.Config(
        cluster.asgi,
        interface="asgi3",
        http=ClientProtocol,
        ws=ClientWebSocket,
        ws_per_message_deflate=False,  # most bytes are previews, which are compressed already
        ws_max_size=min(CLIENT_FRAME_MB, settings.max_frame_mb) * 1024 * 1024,
        ws_ping_interval=settings.ping_interval_s,
        ws_ping_timeout=settings.ping_interval_s,
        timeout_graceful_shutdown=max(1, round(settings.drain_timeout_s)),
        forwarded_allow_ips=settings.trusted_proxies,
        proxy_headers=True,
        server_header=False,
        access_log=False,
        log_config=None,
        lifespan="off",
    )


def own_url(bound: socket.socket) -> str:
    """Where programs of this machine reach the server that listens there."""
    host, port = bound.getsockname()[:2]
    near = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - what stands for every address
    return f"http://{f'[{near}]' if ':' in near else near}:{port}"


def stop_signals() -> list[signal.Signals]:
    """Ctrl-C, `kill`, and a terminal that is closed, unless `nohup` asked to outlive it."""
    hangup = [] if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else [signal.SIGHUP]
    return [signal.SIGINT, signal.SIGTERM, *hangup]


class AnnouncingServer(uvicorn.Server):
    """Says where it serves as soon as it does."""

    def __init__(self, ready: Callable[[str], None], config: uvicorn.Config) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for bound in sockets or []:
            host, port = bound.getsockname()[:2]
            self._ready(f"http://{f'[{host}]' if ':' in host else host}:{port}")
