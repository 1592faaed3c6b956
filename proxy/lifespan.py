"""Birth and death of a server: the only place where clients, loops and child processes begin and end."""

import asyncio
import contextlib

from backend_pool.backends.health import Health
from backend_pool.backends.member import Member
from backend_pool.jobs.upkeep import Upkeep
from proxy.app import Cluster
from proxy.base.errors import ClusterError
from proxy.base.logs import events
from proxy.edge import session_upstream
from user_sessions.directories import prepare_public
from user_sessions.live import Address
from user_sessions.run_dir import clear

log = events(__name__)

STEP_TIMEOUT_S = 60.0
LOOK_EVERY_S = 0.02


async def start(cluster: Cluster, own_url: str) -> None:
    """Bring everything up; on return requests can be answered at `own_url`. Raises ConfigError or Unavailable."""
    await asyncio.to_thread(prepare_public, cluster.settings.data_dir)
    await asyncio.gather(cluster.keeper.ensure(), _register_backends(cluster, own_url))
    await cluster.sessions.adopt()

    async def close_connections(_user_id: int, address: Address) -> None:
        await cluster.upstreams.drop(session_upstream(address).key)

    cluster.sessions.live.on_end.append(close_connections)
    await cluster.groups.reload()
    await cluster.timings.load()
    await cluster.pool.refresh()
    start_loop = cluster.tasks.start
    start_loop("groups", cluster.groups.watch(), vital=True)
    start_loop("upkeep", Upkeep(cluster.db, cluster.settings).watch())
    start_loop("backends", cluster.pool.watch(), vital=True)
    cluster.managed.watch()
    start_loop("agents", cluster.agents.watch(), vital=True)
    await _first_answers(cluster)
    start_loop("learned times", cluster.timings.watch())
    start_loop("dispatcher", cluster.dispatcher.watch(), vital=True)
    start_loop("housekeeping", cluster.housekeeping.watch(), vital=True)
    start_loop("restarts", cluster.restarts.watch(), vital=True)

    def in_use() -> set[int]:
        busy = cluster.upstreams.busy()
        live = cluster.sessions.live.addresses().items()
        return cluster.sockets.users() | {user for user, address in live if session_upstream(address).key in busy}

    start_loop("sessions", cluster.sessions.watch(cluster.dispatcher.busy_users, in_use), vital=True)


async def stop(cluster: Cluster, *, keep: bool = False) -> None:
    """Take everything down in reverse; `keep` leaves sessions and engines to the next server."""
    await cluster.tasks.stop()
    if not keep:
        for name, step in (("sessions", _end_sessions(cluster)), ("backends", cluster.managed.stop())):
            try:
                await asyncio.wait_for(step, STEP_TIMEOUT_S)
            except (ClusterError, TimeoutError) as error:
                log.error("not stopped", what=name, error=repr(error))
        await asyncio.to_thread(clear, cluster.settings)
    for close in (cluster.upstreams.close(), cluster.spawner.close(), cluster.pool.close(), cluster.access.close()):
        with contextlib.suppress(ClusterError):
            await close
    await asyncio.to_thread(cluster.db.close)


async def _end_sessions(cluster: Cluster) -> None:
    if await cluster.keeper.stop():
        await cluster.sessions.host_ended()


async def _first_answers(cluster: Cluster) -> None:
    """Until a backend has answered or each has failed to once, so that a ready server can judge prompts."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(cluster.settings.probe_timeout_s):
            while not any(member.health is Health.UP for member in cluster.pool.members.values()):
                if all(_has_said(member) for member in cluster.pool.members.values()):
                    return
                await asyncio.sleep(LOOK_EVERY_S)


def _has_said(member: Member) -> bool:
    """Whether nothing more is to be waited for: it has failed, or it sleeps."""
    return member.error is not None or member.health is Health.ASLEEP


async def _register_backends(cluster: Cluster, own_url: str) -> None:
    """Backends of the settings, and those that this server keeps."""
    settings, registry = cluster.settings, cluster.registry
    await registry.keep_only("settings", settings.backends)
    for url in settings.backends:
        await registry.ensure(url, None, "settings")
    await cluster.managed.register(own_url)
