"""`python -m user_sessions.host`: the session host, a process of its own that outlives the proxy.

Composition root: one control socket, one roster, one warm zygote. A lock beside the socket makes sure that there is one
host per run directory; when the host ends, by whatever means, the kernel ends its zygotes and these their sessions.
"""

import argparse
import asyncio
import contextlib
import fcntl
import os
import secrets
import signal
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from aiohttp import web

from proxy.base.errors import ClusterError, ConfigError
from proxy.base.log_file import trim
from proxy.base.logs import configure, events
from proxy.base.names import new_id
from proxy.base.tasks import Tasks
from user_sessions import policy
from user_sessions.directories import failures, host_log, make_private, prepare_public
from user_sessions.host_api import HostApi
from user_sessions.refresher import Refresher
from user_sessions.roster import Roster
from user_sessions.run_dir import SOCKET_BYTES
from user_sessions.runtimes import program, readable_paths
from user_sessions.sandbox import check
from user_sessions.zygote_process import Orders
from user_sessions.zygotes import Zygotes

SOCKET_CHECK_S = 2.0
LOG_CHECK_S = 5.0
CONFIG_ERROR = 2
"""Exit code that tells a supervisor not to start us again unchanged."""

log = events(__name__)


@dataclass(frozen=True)
class HostConfig:
    """What a host is started with."""

    data_dir: Path
    socket: Path
    orders: Orders
    policy: policy.Policy
    start_timeout_s: float
    stop_timeout_s: float
    warm_timeout_s: float

    @property
    def token_file(self) -> Path:
        """The token callers need, 0600."""
        return token_file(self.socket)


def token_file(socket: Path) -> Path:
    """Where the token of the host at `socket` is."""
    return socket.with_suffix(".token")


async def serve(config: HostConfig) -> None:
    """Run until SIGTERM, Ctrl-C or /shutdown; ends every session first."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    tasks = Tasks()
    roster = Roster(tasks, config.start_timeout_s, config.stop_timeout_s)
    also = policy.python_of(config.orders.options)
    in_force = await asyncio.to_thread(policy.enforce, config.policy, config.data_dir, also)
    orders = replace(config.orders, confinement=in_force.confinement.to_json())
    zygotes = roster.zygotes = Zygotes(orders, roster, tasks)
    token = _token(config.token_file)
    sandbox = tuple(asdict(layer) for layer in in_force.layers)
    refresher = Refresher(zygotes, roster, tasks, config.warm_timeout_s)
    ports = tuple(sorted(policy.open_ports(in_force.confinement)))
    api = HostApi(new_id(), token, config.orders.runtime, roster, zygotes, refresher, stopped.set, sandbox, ports)
    runner = web.AppRunner(api.app(), access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    mine: int | None = None
    try:
        zygotes.start()
        config.socket.unlink(missing_ok=True)  # ours to replace: we hold the lock
        with failures(config.socket):
            await web.UnixSite(runner, str(config.socket)).start()
        mine = _inode(config.socket)
        tasks.start("watch the socket", _end_when_lost(config.socket, mine, stopped), vital=True)
        tasks.start("trim the log", _keep_log_short(host_log(config.data_dir)))
        log.info("session host ready", socket=config.socket, runtime=config.orders.runtime, pid=os.getpid())
        await stopped.wait()
    finally:
        if _inode(config.socket) == mine:  # else it is another host's by now
            config.socket.unlink(missing_ok=True)  # no new callers
        await roster.stop_all()
        await runner.cleanup()
        await zygotes.end()
        if in_force.group is not None:
            await asyncio.to_thread(in_force.group.remove)
        await tasks.stop()
        log.info("session host ended")


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, take the lock, serve. Exit code 2 and one line when the operator must change something."""
    options = _parser().parse_args(arguments)
    configure(options.log_level, options.log_format)
    try:
        config = _config(options)
        with _only_host(config.socket):
            asyncio.run(serve(config))
    except ClusterError as error:
        sys.stderr.write(f"session host: {error.message}\n")
        return CONFIG_ERROR
    return 0


async def _end_when_lost(socket: Path, mine: int | None, stopped: asyncio.Event) -> None:
    """A host whose socket was deleted or replaced (someone removed the data directory) can never be asked or ended
    again: it ends itself, and with it sessions that nobody can reach."""
    while True:
        await asyncio.sleep(SOCKET_CHECK_S)
        if _inode(socket) != mine:
            log.error("control socket is gone: ending", socket=socket)
            stopped.set()
            return


async def _keep_log_short(path: Path) -> None:
    """Drop the oldest lines of our own log, which zygotes write to as well. Where our output goes elsewhere (a journal,
    a terminal), it is not ours to cut."""
    while True:
        with contextlib.suppress(OSError):  # not there, or no longer ours: nothing grows that we could cut
            if os.path.samestat(os.fstat(2), path.lstat()):
                await asyncio.to_thread(trim, path)
        await asyncio.sleep(LOG_CHECK_S)


def _inode(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except OSError:
        return None


@contextlib.contextmanager
def _only_host(socket: Path) -> Iterator[None]:
    lock = socket.with_suffix(".lock")
    with failures(lock):
        fd = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(fd)
        raise ConfigError(f"A session host serves {socket} already. Stop it first, or use another --socket.") from error
    try:
        yield
    finally:
        os.close(fd)


def _token(path: Path) -> str:
    """The token of this run directory; made anew by each host, so that an old one opens nothing."""
    token = secrets.token_urlsafe(32)
    partial = path.with_suffix(".part")
    partial.unlink(missing_ok=True)
    fd = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "w") as file:
        file.write(token)
    partial.replace(path)
    return token


def _config(options: argparse.Namespace) -> HostConfig:
    socket = Path(os.path.abspath(options.socket))  # noqa: PTH100 - resolve() would follow a planted link
    if len(os.fsencode(socket)) > SOCKET_BYTES:
        raise ConfigError(f"The path {socket} is longer than {SOCKET_BYTES} bytes. Choose a shorter --socket.")
    make_private(socket.parent)
    prepare_public(options.data_dir)
    runtime_options = dict(_pair(text) for text in options.option)
    wanted = policy.from_arguments(options, readable_paths(options.runtime, runtime_options))
    check(options.data_dir, wanted.confinement)
    orders = Orders(
        runtime=options.runtime,
        options=runtime_options,
        confinement={},  # known once this host is the only one
        log_level=options.log_level,
        log_format=options.log_format,
        program=program(options.runtime, runtime_options),
    )
    return HostConfig(
        data_dir=options.data_dir,
        socket=socket,
        orders=orders,
        policy=wanted,
        start_timeout_s=options.start_timeout_s,
        stop_timeout_s=options.stop_timeout_s,
        warm_timeout_s=options.warm_timeout_s,
    )


def _pair(text: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not sign:
        raise ConfigError(f"--option {text} names no value. Write --option NAME=VALUE.")
    return name, value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("session-host", description="Forks and watches users' sessions.")
    add = parser.add_argument
    add("--data-dir", type=Path, required=True, help="where the users' directories are")
    add("--socket", type=Path, required=True, help="control socket to make, in a directory of mode 0700")
    add("--runtime", default="light", help="`light`, `comfyui`, or `package.module:Class`")
    add("--option", action="append", default=[], metavar="NAME=VALUE", help="one of the runtime's options; repeatable")
    policy.add_arguments(parser)
    add("--start-timeout-s", type=float, default=60.0, help="how long a session may take to answer")
    add("--stop-timeout-s", type=float, default=5.0, help="how long a session may take to end before a kill")
    add("--warm-timeout-s", type=float, default=600.0, help="how long preparing a zygote for a refresh may take")
    add("--log-level", default="info", choices=("debug", "info", "warning", "error"), help="how much to log")
    add("--log-format", default="text", choices=("text", "json"), help="for people or for machines")
    return parser


if __name__ == "__main__":
    sys.exit(main())
