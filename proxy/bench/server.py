"""Servers that a bench starts for itself, in a directory that goes with them, and how their users sign in."""

import asyncio
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from proxy.access.accounts import add_now
from proxy.access.tokens import create_now
from proxy.base.database import Database, sqlite_url
from proxy.base.errors import Unavailable
from proxy.base.names import new_id

START_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 60.0


@dataclass
class BenchServer:
    """One `comfy-cluster up` with embedded engines. `start` again after `kill` finds its data and engines."""

    folder: Path
    engines: int
    engine_args: list[str]
    settings: Mapping[str, str] = field(default_factory=dict)
    url: str = ""
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def data_dir(self) -> Path:
        """Its data."""
        return self.folder / "data"

    async def start(self) -> None:
        """Start it and wait until it serves. Raises Unavailable."""
        command = [sys.executable, "-m", "proxy", "up", "--port", "0", "--data-dir", str(self.data_dir)]
        own = {name: value for name, value in os.environ.items() if not name.startswith("COMFY_CLUSTER_")}
        more = {"COMFY_CLUSTER_ENGINE_ARGS": json.dumps(self.engine_args), **self.settings}
        command += ["--engines", str(self.engines)]
        self.process = await asyncio.to_thread(launch, command, self.folder / "log", {**own, **more})
        self.url = await asyncio.wait_for(asyncio.to_thread(ready, self.process), START_TIMEOUT_S)

    async def kill(self) -> None:
        """kill -9; its engines live on."""
        if self.process is not None:
            self.process.kill()
            await self._ended()

    async def stop(self) -> None:
        """End it and what it started."""
        if self.process is not None:
            self.process.terminate()
            await self._ended()

    async def _ended(self) -> None:
        assert self.process is not None and self.process.stdout is not None
        await asyncio.to_thread(self.process.wait, STOP_TIMEOUT_S)
        self.process.stdout.close()

    def engine_urls(self) -> list[str]:
        """Where its engines are, with their secrets."""
        return [path.read_text().strip() for path in sorted((self.data_dir / "run").glob("engine-*.url"))]

    def database(self) -> Database:
        """Its database; close it."""
        return Database(sqlite_url(self.data_dir / "cluster.db"))


@asynccontextmanager
async def bench_server(
    engines: int, engine_args: list[str], settings: Mapping[str, str] | None = None
) -> AsyncIterator[BenchServer]:
    """A running one."""
    with tempfile.TemporaryDirectory(prefix="comfy-bench-") as folder:
        server = BenchServer(Path(folder), engines, engine_args, settings or {})
        try:
            await server.start()
            yield server
        finally:
            await server.stop()


def account(db: Database, name: str, *, admin: bool = False) -> tuple[int, str]:
    """A new user's number and token."""
    return add_now(db, name, new_id(), is_admin=admin).key, create_now(db, name, name)


def launch(
    command: list[str], log_path: Path, environment: Mapping[str, str] | None = None
) -> "subprocess.Popen[bytes]":
    """Start a program of ours whose first words come on standard output."""
    with log_path.open("ab") as log:
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, stdin=subprocess.DEVNULL, env=environment)


def ready(process: "subprocess.Popen[bytes]") -> str:
    """The address it prints. Raises Unavailable when it ends instead."""
    assert process.stdout is not None
    for line in process.stdout:
        if found := re.match(rb"Ready: (\S+)", line):
            return found[1].decode()
    raise Unavailable("The bench's own server did not start. Try `comfy-cluster up` to see why.")
