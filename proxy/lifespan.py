"""Birth and death of a server: the only place where clients, loops and child processes begin and end."""

import asyncio
import contextlib

from backend_pool.backends.health import Health
from backend_pool.backends.member import Member
from backend_pool.jobs.upkeep import Upkeep
from proxy.app import Cluster, People, Work
from proxy.base.errors import ClusterError
from proxy.base.logs import events
from proxy.edge import session_upstream
from user_sessions.directories import prepare_public
from user_sessions.live import Address
from user_sessions.run_dir import clear

log = events(__name__)

STEP_TIMEOUT_S = 60.0
RELEASE_TIMEOUT_S = 5.0
LOOK_EVERY_S = 0.02


async def start(cluster: Cluster, own_url: str) -> None:
    """Bring everything up; on return requests can be answered at `own_url`. Raises ConfigError or Unavailable."""
    people, work = cluster.people, cluster.work
    await work.lease.acquire()
    cluster.tasks.start("lease", work.lease.watch(), vital=True)
    await asyncio.to_thread(prepare_public, cluster.settings.data_dir)
    await asyncio.gather(people.keeper.ensure(), _register_backends(cluster, own_url))
    await people.sessions.adopt()

    async def close_connections(_user_id: int, address: Address) -> None:
        await people.upstreams.drop(session_upstream(address).key)

    people.sessions.live.on_end.append(close_connections)
    await work.groups.reload()
    await work.timings.load()
    await work.pool.refresh()
    start_loop = cluster.tasks.start
    start_loop("groups", work.groups.watch(), vital=True)
    start_loop("upkeep", Upkeep(cluster.db, cluster.settings).watch())
    start_loop("backends", work.pool.watch(), vital=True)
    work.managed.watch()
    start_loop("agents", work.agents.watch(), vital=True)
    await _first_answers(work, cluster.settings.probe_timeout_s)
    start_loop("learned times", work.timings.watch())
    start_loop("dispatcher", work.dispatcher.watch(), vital=True)
    start_loop("housekeeping", work.housekeeping.watch(), vital=True)
    start_loop("restarts", work.restarts.watch(), vital=True)

    def in_use() -> set[int]:
        busy = people.upstreams.busy()
        live = people.sessions.live.addresses().items()
        return cluster.sockets.users() | {user for user, address in live if session_upstream(address).key in busy}

    start_loop("sessions", people.sessions.watch(work.dispatcher.busy_users, in_use), vital=True)


async def stop(cluster: Cluster, *, keep: bool = False) -> None:
    """Take everything down in reverse; `keep` leaves sessions and engines to the next server."""
    people, work = cluster.people, cluster.work
    await cluster.tasks.stop()
    if not keep:
        for name, step in (("sessions", _end_sessions(people)), ("backends", work.managed.stop())):
            try:
                await asyncio.wait_for(step, STEP_TIMEOUT_S)
            except (ClusterError, TimeoutError) as error:
                log.error("not stopped", what=name, error=repr(error))
        await asyncio.to_thread(clear, cluster.settings)
    for close in (people.upstreams.close(), people.spawner.close(), work.pool.close(), people.access.close()):
        with contextlib.suppress(ClusterError):
            await close
    with contextlib.suppress(ClusterError, TimeoutError):
        await asyncio.wait_for(work.lease.release(), RELEASE_TIMEOUT_S)
    await asyncio.to_thread(cluster.db.close)


async def _end_sessions(people: People) -> None:
    if await people.keeper.stop():
        await people.sessions.host_ended()


async def _first_answers(work: Work, timeout_s: float) -> None:
    """Until a backend has answered or each has failed to once, so that a ready server can judge prompts."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            while not any(member.health is Health.UP for member in work.pool.members.values()):
                if all(_has_said(member) for member in work.pool.members.values()):
                    return
                await asyncio.sleep(LOOK_EVERY_S)


def _has_said(member: Member) -> bool:
    """Whether nothing more is to be waited for: it has failed, or it sleeps."""
    return member.error is not None or member.health is Health.ASLEEP


async def _register_backends(cluster: Cluster, own_url: str) -> None:
    """Backends of the settings, and those that this server keeps."""
    settings, registry = cluster.settings, cluster.work.registry
    await registry.keep_only("settings", settings.backends)
    for url in settings.backends:
        await registry.ensure(url, None, "settings")
    await cluster.work.managed.register(own_url)
