"""A whole server for tests: `comfy-cluster up` in a process of its own, on a free port, with all that it starts.

Its process is forked from one that has imported the server, unless a test asks for a fresh program.
`start_cluster(tmp_path)` again with the same folder starts it on the same data. Use it as a context manager, or call
`clean` at the end: whatever still runs on the data directory is killed then.
"""

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import httpx

from proxy import cli
from proxy.access.accounts import add_now
from proxy.access.tokens import create_now
from proxy.base.database import Database, sqlite_url
from proxy.base.settings import Settings
from tests.forked import Forked
from tests.packed_frontend import PACKED
from user_sessions.run_dir import run_dir

START_TIMEOUT_S = 90.0
STOP_TIMEOUT_S = 60.0
REQUEST_TIMEOUT_S = 30.0
QUICK_ENGINES = '["--step-ms", "5", "--model-load-ms", "0", "--faults"]'
READY = "Ready: "


@dataclass(frozen=True)
class Person:
    """An account with an API token."""

    name: str
    password: str
    token: str
    slug: str
    id: int


@dataclass
class Cluster:
    """A running server. `log_path` holds its standard error, `output` what it printed up to `Ready:`."""

    url: str
    data_dir: Path
    process: subprocess.Popen[str] | Forked
    log_path: Path
    output: list[str] = field(default_factory=list)

    def user(self, name: str, *, admin: bool = False) -> Person:
        """A new account with a token, made the way the command line does it."""
        password = f"secret of {name}"
        db = Database(sqlite_url(self.data_dir / "cluster.db"))
        try:
            row = add_now(db, name, password, is_admin=admin)
            return Person(row.name, password, create_now(db, name, "test"), row.slug, row.key)
        finally:
            db.close()

    def command(self, *args: str) -> str:
        """What `comfy-cluster --data-dir <its own> <args>` prints; it must end well."""
        command = [sys.executable, "-m", "proxy", "--data-dir", str(self.data_dir), *args]
        done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment())
        assert done.returncode == 0, done.stderr
        return done.stdout

    def client(self, person: Person | None = None) -> httpx.AsyncClient:
        """An API client of that person, or of nobody."""
        headers = {"Authorization": f"Bearer {person.token}"} if person else {}
        return httpx.AsyncClient(base_url=self.url, headers=headers, trust_env=False, timeout=REQUEST_TIMEOUT_S)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Ask it to end; its exit status. Harmless when it has ended."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self._wait()

    def kill(self) -> None:
        """SIGKILL to the proxy alone: what it started lives on, as after a crash."""
        self.process.kill()
        self._wait()

    def log(self) -> str:
        """What it has logged."""
        return self.log_path.read_text()

    def processes(self) -> dict[int, str]:
        """Its own process, and every one that has the data directory in its command line: pid and command."""
        own = {} if self.process.poll() is not None else {self.process.pid: "the server"}
        return own | processes_of(self.data_dir)

    def clean(self) -> None:
        """Kill whatever is left, and remove sockets kept outside of the data directory."""
        self.process.kill()
        clean(self.data_dir)
        self._wait()

    def _wait(self) -> int:
        try:
            return self.process.wait(STOP_TIMEOUT_S)
        finally:
            if self.process.stdout is not None:
                self.process.stdout.close()

    def __enter__(self) -> "Cluster":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.stop()
        finally:
            self.clean()


def start_cluster(
    tmp_path: Path,
    *args: str,
    env: Mapping[str, str] | None = None,
    wrapper: Sequence[str] = (),
    fresh: bool = False,
) -> Cluster:
    """Start `comfy-cluster up --port 0 <args>` on `tmp_path/data` and wait for `Ready:`; engines take quick steps.

    `fresh` runs the program itself, as a user does.
    """
    data_dir = tmp_path / "data"
    log_path = tmp_path / "server.log"
    if not wrapper:  # which may run the server as somebody else
        PACKED.lend(data_dir)
    command = ("up", "--port", "0", "--data-dir", str(data_dir), *args)
    process = (
        launch(tmp_path, *command, env=env, wrapper=wrapper) if fresh or wrapper else fork(tmp_path, *command, env=env)
    )
    output: list[str] = []
    guard = threading.Timer(START_TIMEOUT_S, process.kill)
    guard.start()
    try:
        assert process.stdout is not None
        for line in process.stdout:  # ends when the process does
            output.append(line.rstrip("\n"))
            if line.startswith(READY):
                url = line.removeprefix(READY).strip()
                return Cluster(url, data_dir, process, log_path, output)
    finally:
        guard.cancel()
    process.stdout.close()
    status = process.wait(STOP_TIMEOUT_S)
    clean(data_dir)
    raise RuntimeError(f"The server did not start ({status}): {output} {log_path.read_text()[-3000:]}")


def launch(
    tmp_path: Path, *args: str, env: Mapping[str, str] | None = None, wrapper: Sequence[str] = ()
) -> subprocess.Popen[str]:
    """`wrapper comfy-cluster <args>` with its own environment; standard error goes to `tmp_path/server.log`."""
    tmp_path.mkdir(parents=True, exist_ok=True)
    with (tmp_path / "server.log").open("a") as errors:
        return subprocess.Popen(
            [*wrapper, sys.executable, "-m", "proxy", *args],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=environment(env),
        )


def fork(tmp_path: Path, *args: str, env: Mapping[str, str] | None = None) -> Forked:
    """`comfy-cluster <args>` as `launch` runs it, without the second that the imports take."""
    tmp_path.mkdir(parents=True, exist_ok=True)
    return Forked(_main, *args, log=tmp_path / "server.log", env=environment(env))


def _main(*args: str) -> None:
    sys.argv = ["comfy-cluster", *args]
    cli.main()


def environment(env: Mapping[str, str] | None = None) -> dict[str, str]:
    """Ours without the settings in it, plus `env`."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("COMFY_CLUSTER_")}
    return {**own, "COMFY_CLUSTER_ENGINE_ARGS": QUICK_ENGINES, "PYTHONUNBUFFERED": "1", **(env or {})}


def processes_of(data_dir: Path) -> dict[int, str]:
    """Every live process with that directory in its command line; forked sessions have their zygote's."""
    found: dict[int, str] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            command = _command(folder)
            if str(data_dir) in command:
                found[int(folder.name)] = command
    return found


def clean(data_dir: Path) -> None:
    """Kill every process of that directory and remove its sockets."""
    for pid in processes_of(data_dir):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    run = run_dir(Settings(data_dir=data_dir))
    if not run.is_relative_to(data_dir):
        shutil.rmtree(run, ignore_errors=True)


def _command(folder: Path) -> str:
    try:
        return (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:  # it ended while we looked
        return ""
