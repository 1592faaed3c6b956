"""Start the session host, or adopt the one that runs: a record on disk, a health check, an end.

A host that someone else started on the same socket (a service) is used and never ended from here.
"""

import asyncio
import sys
from pathlib import Path

from proxy.base.clock import monotonic_s
from proxy.base.errors import ConfigError, Unavailable
from proxy.base.log_file import tail, trim
from proxy.base.logs import events
from proxy.base.processes import Daemon, launch, recorded
from proxy.base.settings import Settings
from user_sessions.directories import failures, host_log, make_private
from user_sessions.policy import arguments, policy_of
from user_sessions.run_dir import host_socket, run_dir
from user_sessions.runtime_options import runtime_options
from user_sessions.spawner import HostSpawner

HEALTH_TIMEOUT_S = 2.0
HEALTH_PAUSE_S = 0.05
LISTEN_TIMEOUT_S = 30.0
END_MARGIN_S = 10.0

log = events(__name__)


class HostProcess:
    """The session host of this data directory. Raises ConfigError when its runtime cannot be had."""

    def __init__(self, settings: Settings, runtime: str | None = None) -> None:
        self._settings = settings
        self._runtime = runtime or settings.runtime
        self._options = runtime_options(settings, self._runtime)
        self._lock = asyncio.Lock()
        self.run = run_dir(settings)

    @property
    def record(self) -> Path:
        """Pid and start time of the host we started."""
        return self.run / "host.json"

    @property
    def log(self) -> Path:
        """Where its output goes."""
        return host_log(self._settings.data_dir)

    def spawner(self) -> HostSpawner:
        """A client of it that starts it again when it is gone."""
        settings = self._settings
        return HostSpawner(
            self.run, settings.session_start_timeout_s, settings.session_stop_timeout_s, revive=self.ensure
        )

    async def ensure(self) -> None:
        """Return once a host answers. Raises Unavailable, or ConfigError when it refuses to start."""
        async with self._lock:
            probe = HostSpawner(self.run, HEALTH_TIMEOUT_S, HEALTH_TIMEOUT_S, call_timeout_s=HEALTH_TIMEOUT_S)
            try:
                if await self._usable(probe):
                    return
                daemon = recorded(self.record) or await self._launch()
                await self._wait(probe, daemon)
            finally:
                await probe.close()

    async def stop(self) -> bool:
        """End the host we started, and with it its sessions. One started by others goes on. Whether none is left."""
        daemon = recorded(self.record)
        if daemon is None:  # a service manager may have ended it together with us
            probe = HostSpawner(self.run, HEALTH_TIMEOUT_S, HEALTH_TIMEOUT_S, call_timeout_s=HEALTH_TIMEOUT_S)
            try:
                return not await self._answers(probe)
            finally:
                await probe.close()
        limit_s = self._settings.session_stop_timeout_s + END_MARGIN_S
        if not await asyncio.to_thread(daemon.stop, limit_s):
            raise Unavailable(f"The session host (process {daemon.pid}) did not end even when killed.")
        self.record.unlink(missing_ok=True)
        return True

    def command(self) -> list[str]:
        """How it is started; no secret is in there."""
        settings = self._settings
        command = [sys.executable, "-m", "user_sessions.host"]
        for name, value in {
            "data-dir": settings.data_dir.absolute(),
            "socket": host_socket(self.run),
            "runtime": self._runtime,
            "start-timeout-s": settings.session_start_timeout_s,
            "stop-timeout-s": settings.session_stop_timeout_s,
            "warm-timeout-s": settings.warm_timeout_s,
            "log-level": settings.log_level,
            "log-format": settings.log_format,
        }.items():
            command += [f"--{name}", str(value)]
        command += arguments(policy_of(settings, self._runtime))
        for name, value in self._options.items():
            command += ["--option", f"{name}={value}"]
        return command

    async def _usable(self, probe: HostSpawner) -> bool:
        """Whether one answers that runs what is wanted; our own with other options is ended first."""
        try:
            health = await probe.health()
        except Unavailable:
            return False
        found = health.get("runtime")
        if found == self._runtime and health.get("options", self._options) == self._options:
            return True
        if recorded(self.record) is None:
            wanted = repr(self._runtime) if found != self._runtime else "what the settings say"
            raise ConfigError(f"The session host on {self.run} runs {found!r}, not {wanted}. Restart it.")
        log.warning("session host runs something else: ending it", found=found, wanted=self._runtime)
        await self.stop()
        return False

    async def _launch(self) -> Daemon:
        with failures(self.log):
            self._settings.data_dir.mkdir(parents=True, exist_ok=True)
            make_private(self.log.parent)
            trim(self.log)
            # The host's lock keeps a second one out should we die before the record is written.
            daemon = launch(self.command(), self.record, self.log)
        log.info("session host started", pid=daemon.pid, runtime=self._runtime)
        return daemon

    async def _wait(self, probe: HostSpawner, daemon: Daemon) -> None:
        deadline = monotonic_s() + LISTEN_TIMEOUT_S
        while monotonic_s() < deadline:
            if await self._answers(probe):
                return
            if not daemon.alive():
                if await self._answers(probe):  # somebody else's host was first
                    return
                reason = tail(self.log, 300).rpartition("\n")[2]
                raise ConfigError(f"The session host does not start: {reason or 'see ' + str(self.log)}")
            await asyncio.sleep(HEALTH_PAUSE_S)
        raise Unavailable(f"The session host did not answer within {LISTEN_TIMEOUT_S:g} s. See {self.log}.")

    @staticmethod
    async def _answers(probe: HostSpawner) -> bool:
        try:
            await probe.health()
        except Unavailable:
            return False
        return True
