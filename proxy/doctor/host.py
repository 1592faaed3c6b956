"""The doctor's look at a running session host: its own lines, and what its sessions run and are confined by.

What a host says of itself holds, whatever the settings given to the doctor say: it may have been started with others.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from proxy.base.errors import ClusterError
from proxy.base.settings import Settings
from proxy.doctor.finding import Finding, bad, note
from user_sessions.directories import host_log
from user_sessions.layers import Layer
from user_sessions.report import failed_nodes
from user_sessions.run_dir import fits, host_socket
from user_sessions.spawner import HostSpawner

TIMEOUT_S = 5.0
PACKS_SHOWN = 20


@dataclass(frozen=True)
class SeenHost:
    """What one said. `ports` are those its sessions may connect to."""

    runtime: str
    options: Mapping[str, str]
    layers: tuple[Layer, ...]
    ports: frozenset[int]

    @staticmethod
    def from_health(health: Mapping[str, Any]) -> "SeenHost":
        """Raises ValueError when an older or newer host says something else."""
        try:
            return SeenHost(
                runtime=str(health["runtime"]),
                options={str(name): str(value) for name, value in health["options"].items()},
                layers=tuple(Layer(**layer) for layer in health["sandbox"]),
                ports=frozenset(map(int, health["ports"])),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{error!r}") from error


async def see_host(settings: Settings) -> tuple[list[Finding], SeenHost | None]:
    """Its lines, and itself where one answers. Starts none."""
    run = (settings.run_dir or settings.data_dir / "run").absolute()
    if not fits(run) or not host_socket(run).exists():
        return [], None
    spawner = HostSpawner(run, TIMEOUT_S, TIMEOUT_S, call_timeout_s=TIMEOUT_S)
    try:
        listed = await spawner.listing()
        health = await spawner.health()
    except ClusterError as error:
        return [bad("session host", f"{error.message} Its log: {host_log(settings.data_dir)}")], None
    finally:
        await spawner.close()
    found = [Finding("session host", f"answers, {len(listed)} sessions"), *look_at_host(health)]
    try:
        host = SeenHost.from_health(health)
    except ValueError:
        version = health.get("version", "unknown")
        return [*found, note("session host", f"it is of another version ({version}): restart it")], None
    if host.runtime != settings.runtime:
        said = f"runs {host.runtime}, and is judged as that; the settings given here say {settings.runtime}"
        found.insert(1, note("session host", said))
    return found, host


def look_at_host(health: Mapping[str, Any]) -> Iterator[Finding]:
    """What it says of what its sessions start from."""
    zygote = health.get("zygote") or {}
    broken = health.get("broken") or (not zygote.get("warm") and zygote.get("error"))
    if zygote.get("unforkable"):
        yield note("sessions", f"not forked, so slow to start and large: {zygote['unforkable']}")
    if broken:
        yield bad("sessions", f"cannot be started: {broken} See logs/session-host.log; after a repair: session refresh")
    failed = failed_nodes(health.get("failed_nodes"))
    for node in failed[:PACKS_SHOWN]:
        yield note("custom nodes", f"{node.pack} did not load: {node.error}")
    if len(failed) > PACKS_SHOWN:
        yield note("custom nodes", f"{len(failed) - PACKS_SHOWN} more did not load, see the administrator's page")
