"""Sessions without a session host: the proxy starts each as a child process of its own (setting `spawner`).

The counterpart of `host_process.py` with the same verbs. Children outlive a proxy that is killed, and are found again.
"""

import asyncio
from dataclasses import replace

from proxy.base.errors import Unavailable
from proxy.base.logs import events
from proxy.base.settings import Settings
from user_sessions.child_spawner import ChildSpawner
from user_sessions.directories import prepare_public
from user_sessions.policy import enforce, policy_of, python_of
from user_sessions.run_dir import run_dir
from user_sessions.runtime_options import runtime_options
from user_sessions.runtimes import readable_paths
from user_sessions.sandbox import check

log = events(__name__)


class Children:
    """The sessions of this data directory as child processes."""

    def __init__(self, settings: Settings, runtime: str | None = None) -> None:
        self._settings = settings
        self._runtime = runtime or settings.runtime
        self._options = runtime_options(settings, self._runtime)
        wanted = policy_of(settings, self._runtime).with_readable(readable_paths(self._runtime, self._options))
        # A proxy that was killed leaves its sessions running: no group of theirs may be made anew around them.
        self._policy = replace(wanted, cgroup=False)
        self._confinement = wanted.confinement
        self.run = run_dir(settings)

    def spawner(self) -> ChildSpawner:
        """What starts them."""
        return ChildSpawner(
            self.run,
            runtime=self._runtime,
            options=self._options,
            confinement=self._confinement,
            start_timeout_s=self._settings.session_start_timeout_s,
            stop_timeout_s=self._settings.session_stop_timeout_s,
        )

    async def ensure(self) -> None:
        """Check what a session host would check at its start. Raises ConfigError or Unavailable."""
        check(self._settings.data_dir, self._confinement)
        await asyncio.to_thread(prepare_public, self._settings.data_dir)
        log.warning("sessions start without a zygote: slower, with more memory each", setting="spawner")
        if not await self.spawner().listing():  # who owns users' files is decided while nobody uses them
            also = python_of(self._options)
            await asyncio.to_thread(enforce, self._policy, self._settings.data_dir, also)

    async def stop(self) -> bool:
        """End all of them. Whether none is left."""
        spawner = self.spawner()
        running = await spawner.listing()
        ends = await asyncio.gather(*(spawner.stop(poll.session_id) for poll in running), return_exceptions=True)
        for end in ends:
            if isinstance(end, Unavailable):
                raise end
        return True
