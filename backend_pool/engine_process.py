"""Embedded engines as processes of ours: started or, after a kill of the proxy, found again; stopped with it."""

import asyncio
import os
import secrets
import sys
from pathlib import Path

from proxy.base.clock import monotonic_s
from proxy.base.errors import ConfigError
from proxy.base.log_file import trim
from proxy.base.logs import events
from proxy.base.processes import Daemon, launch, recorded
from proxy.base.settings import Settings

log = events(__name__)

START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 3.0
LOOK_EVERY_S = 0.05


class Engines:
    """The engines of one data directory, numbered from 1."""

    def __init__(self, settings: Settings, run: Path) -> None:
        self._settings = settings
        self._run = run

    async def ensure(self, count: int) -> list[str]:
        """URLs of exactly `count` running engines; surplus ones of an earlier start are stopped."""
        for number in self._known():
            if number > count:
                await self._stop_one(number)
        return list(await asyncio.gather(*(self._ensure_one(number) for number in range(1, count + 1))))

    async def stop(self) -> None:
        """Stop all."""
        await asyncio.gather(*(self._stop_one(number) for number in self._known()))

    def alive(self, number: int) -> bool:
        """Whether that engine's process runs."""
        return recorded(self._record(number)) is not None

    async def revive(self, number: int) -> str:
        """Start one that died; its new URL. Raises ConfigError when it does not start."""
        return await self._ensure_one(number)

    def trim_log(self, number: int) -> None:
        """Drop the oldest lines of a log that has grown too long. Blocking."""
        trim(self._log(number))

    async def _ensure_one(self, number: int) -> str:
        daemon = recorded(self._record(number))
        if daemon is None:
            self._address(number).unlink(missing_ok=True)
            # Not in a thread: a start that is cancelled meanwhile could not know of the process it has to end.
            daemon = self._launch(number)
        deadline = monotonic_s() + START_TIMEOUT_S
        while not self._address(number).is_file():
            if not daemon.alive() or monotonic_s() > deadline:
                raise ConfigError(f"The embedded engine {number} did not start. Its log: {self._log(number)}")
            await asyncio.sleep(LOOK_EVERY_S)
        return self._address(number).read_text().strip()

    def _launch(self, number: int) -> Daemon:
        base = self._settings.data_dir / "engines" / str(number)
        base.mkdir(mode=0o700, parents=True, exist_ok=True)
        secret = self._secret(number)
        _write_secret(secret)
        command = [sys.executable, "-m", "backend_pool.engine", "--host", "127.0.0.1", "--port", "0"]
        command += ["--base-dir", str(base), "--name", f"engine-{number}", "--url-file", str(self._address(number))]
        command += ["--secret-file", str(secret)]
        return launch([*command, *self._settings.engine_args], self._record(number), self._log(number))

    async def _stop_one(self, number: int) -> None:
        daemon = recorded(self._record(number))
        if daemon is not None and not await asyncio.to_thread(daemon.stop, STOP_TIMEOUT_S):
            log.error("engine did not end", engine=number, pid=daemon.pid)
            return
        self._record(number).unlink(missing_ok=True)
        self._address(number).unlink(missing_ok=True)
        self._secret(number).unlink(missing_ok=True)

    def _known(self) -> list[int]:
        return [int(path.stem.removeprefix("engine-")) for path in self._run.glob("engine-*.json")]

    def _record(self, number: int) -> Path:
        return self._run / f"engine-{number}.json"

    def _address(self, number: int) -> Path:
        return self._run / f"engine-{number}.url"

    def _secret(self, number: int) -> Path:
        return self._run / f"engine-{number}.secret"

    def _log(self, number: int) -> Path:
        return self._settings.data_dir / "logs" / f"engine-{number}.log"


def _write_secret(path: Path) -> None:
    """What the engine asks of its clients: accounts of this machine reach its port too, and so do sessions."""
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "w") as file:
        file.write(secrets.token_urlsafe(32))
