"""A supervisor with the processes it decides about: what the server's keeper and an agent have in common."""

import asyncio
from collections.abc import Mapping, Sequence

from backend_pool.backends.phase import Phase
from backend_pool.managed.instances import Instances
from backend_pool.managed.supervisor import Facts, Limits, Order, Seen, Supervisor, Verb
from proxy.base.clock import monotonic_s
from proxy.base.errors import ClusterError
from proxy.base.logs import events
from proxy.base.tasks import Tasks

log = events(__name__)


class Crew:
    """Instances of one kind. `register`, then again and again `look`, and `carry_out` of what that returns."""

    def __init__(self, instances: Instances, tasks: Tasks) -> None:
        self.instances = instances
        self.supervisor = Supervisor(Limits(), ())
        self._tasks = tasks
        self._stale: set[str] = set()
        self._ending: set[str] = set()

    @property
    def names(self) -> list[str]:
        """Its instances."""
        return list(self.supervisor.fates)

    @property
    def changing(self) -> bool:
        """Whether one starts or stops, so that it is worth looking again soon."""
        return any(fate.phase in (Phase.STARTING, Phase.STOPPING) for fate in self.supervisor.fates.values())

    async def register(self, names: Sequence[str], limits: Limits) -> None:
        """Take over what runs, end what is not wanted any more. Raises ClusterError."""
        self.supervisor = Supervisor(limits, names, monotonic_s())
        for surplus in set(self.instances.recorded()) - set(names):
            await self.instances.forget(surplus)
        for name in names:
            await asyncio.to_thread(self.instances.adopt, name)
            if not self.instances.alive(name):
                continue
            self.supervisor.fates[name].adopts(monotonic_s())  # not asleep: it may be at work
            if await asyncio.to_thread(self.instances.recipe.stale, name):
                log.info("instance runs otherwise than it would now, and is restarted", instance=name)
                self._stale.add(name)

    async def addresses(self) -> dict[str, str]:
        """URLs of those that have just been started, or found, and serve."""
        coming = [name for name, fate in self.supervisor.fates.items() if fate.phase in (Phase.STARTING, Phase.ASLEEP)]
        found = {name: await self.instances.address(name) for name in coming if self.instances.alive(name)}
        return {name: url for name, url in found.items() if url is not None}

    def look(self, facts: Mapping[str, Facts], ready: Mapping[str, str]) -> list[Order]:
        """What has to be done. Without an await: what `facts` say is so until the new phases were told."""
        seen = {}
        for name in self.names:
            alive, known = self.instances.alive(name), facts[name]
            if not alive:
                self._stale.discard(name)
            seen[name] = Seen(
                alive=alive,
                ready=name in ready,
                busy=known.busy,
                idle_s=known.idle_s,
                wanted=known.wanted,
                known=known.known,
                restart=known.restart or name in self._stale,
            )
        return self.supervisor.look(seen, monotonic_s())

    def crashes(self) -> dict[str, int]:
        """For `note_crashes`."""
        return {name: fate.crashes for name, fate in self.supervisor.fates.items()}

    async def note_crashes(self, before: Mapping[str, int]) -> None:
        """One line for each that has crashed since, with its last words."""
        for name, fate in self.supervisor.fates.items():
            if fate.crashes != before.get(name):
                words = await asyncio.to_thread(self.instances.last_words, name)
                fate.error = f"{fate.error}; its log ends with: {words}" if words else fate.error
                pause_s = round(max(0.0, fate.retry_at - monotonic_s()), 1)
                log.error("instance died", instance=name, deaths=fate.deaths, again_in_s=pause_s, error=fate.error)

    async def carry_out(self, order: Order) -> bool:
        """Do it, a stop in the background. Whether something was started."""
        name = order.name
        if order.verb is Verb.STOP:
            if name not in self._ending:
                self._ending.add(name)
                self._tasks.start(f"stop {name}", self._end(name))
            return False
        try:
            await self.instances.start(name)
        except ClusterError as error:
            pause_s = self.supervisor.failed(name, error.message, monotonic_s())
            log.error("instance could not be started", instance=name, again_in_s=pause_s, error=error.message)
            return False
        return True

    async def trim_logs(self) -> None:
        """Keep their logs below their bound."""
        for name in self.names:
            await asyncio.to_thread(self.instances.trim_log, name)

    async def _end(self, name: str) -> None:
        try:
            await self.instances.stop(name)
        except ClusterError as error:
            log.error("instance not stopped", error=error.message)
        finally:
            self._ending.discard(name)
