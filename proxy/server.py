"""Runs one server on one socket: uvicorn around the application, signals, the line that says it is ready."""

import asyncio
import signal
import socket
from collections.abc import Callable
from types import FrameType

import uvicorn

from proxy import lifespan
from proxy.app import Cluster
from proxy.base.errors import ConfigError
from proxy.base.settings import Settings
from proxy.http_server import ClientProtocol

BACKLOG = 1024
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def listen(settings: Settings) -> socket.socket:
    """The bound socket. Raises ConfigError naming what to do for a taken port or a foreign address."""
    try:
        family = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)[0][0]
        bound = socket.socket(family, socket.SOCK_STREAM)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((settings.host, settings.port))
    except OSError as error:
        raise ConfigError(
            f"{settings.host}:{settings.port} cannot be listened on: {error.strerror or error}. "
            "Choose another --port or --host, or stop what uses it."
        ) from error
    bound.listen(BACKLOG)
    return bound


async def serve(cluster: Cluster, bound: socket.socket, ready: Callable[[str], None]) -> None:
    """Serve until SIGTERM or Ctrl-C, then drain and take everything down; `ready` is told the URL once it answers."""
    loop = asyncio.get_running_loop()
    settings = cluster.settings
    server = AnnouncingServer(
        ready,
        uvicorn.Config(
            cluster.asgi,
            http=ClientProtocol,
            ws="websockets-sansio",
            ws_max_size=settings.max_frame_mb * 1024 * 1024,
            ws_ping_interval=settings.ping_interval_s,
            ws_ping_timeout=settings.ping_interval_s,
            timeout_graceful_shutdown=max(1, round(settings.drain_timeout_s)),
            forwarded_allow_ips=settings.trusted_proxies,
            proxy_headers=True,
            server_header=False,
            access_log=False,
            log_config=None,
            lifespan="off",
        ),
    )

    def end(_number: int, _frame: FrameType | None) -> None:
        # Before uvicorn listens to signals this asks it to end; uvicorn raises those it caught again when it is done.
        server.should_exit = True

    try:
        starting = loop.create_task(lifespan.start(cluster), name="start")
        await _unless_stopped(starting)
        for number in STOP_SIGNALS:
            signal.signal(number, end)
        await server.serve(sockets=[bound])
    finally:
        await lifespan.stop(cluster)


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


async def _unless_stopped(starting: "asyncio.Task[None]") -> None:
    """Wait for the start; a stop that comes meanwhile cancels it."""
    loop = asyncio.get_running_loop()
    for number in STOP_SIGNALS:
        loop.add_signal_handler(number, starting.cancel)
    try:
        await starting
    finally:
        for number in STOP_SIGNALS:
            loop.remove_signal_handler(number)
