"""`comfy-cluster session refresh`: asks what starts the sessions, and waits for the end with a line for people.

Works beside a running server, and with a session host that is a service of its own; starts neither.
"""

import asyncio
import sys

from proxy.base.clock import monotonic_s, now_ms
from proxy.base.errors import Unavailable
from proxy.base.settings import Settings
from user_sessions.children import Children
from user_sessions.host_process import HostProcess
from user_sessions.report import Refresh
from user_sessions.spawner import Keeper, Spawner

LOOK_EVERY_S = 0.2
MARGIN_S = 10.0
WHO = "the command line"
WARMING = "Warming a fresh one beside the old"


async def refresh_sessions(settings: Settings) -> str:
    """Do it; what to tell. Raises Unavailable with the reason when it failed: the old one is still in service."""
    keeper: Keeper = HostProcess(settings) if settings.spawner == "host" else Children(settings)
    spawner = keeper.spawner()
    try:
        await spawner.refresh(WHO)
        ended = await _end(spawner, settings.warm_timeout_s + MARGIN_S)  # as long as the session host tries
        if ended.state != "done":
            old = "as before it, none can be started" if (await spawner.report()).broken else "they start as before it"
            raise Unavailable(f"The refresh failed; {old}. {ended.error}")
        outdated = sum(poll.outdated for poll in await spawner.listing())
    finally:
        await spawner.close()
    took_s = ((ended.ended_ms or 0) - (ended.began_ms or 0)) / 1000
    moving = (
        f"{outdated} {'session runs' if outdated == 1 else 'sessions run'} from before: each moves over when it is "
        "idle, or when its user restarts it."
        if outdated
        else "No session runs from before."
    )
    return f"Sessions start afresh from now on (ready after {took_s:.1f} s). {moving}"


async def _end(spawner: Spawner, limit_s: float) -> Refresh:
    deadline = monotonic_s() + limit_s
    if not sys.stderr.isatty():
        sys.stderr.write(f"{WARMING}; waiting for at most {limit_s:g} s\n")
    while monotonic_s() < deadline:
        refresh = (await spawner.report()).refresh
        if refresh.state in ("done", "failed"):
            _progress("")
            return refresh
        _progress(f"{WARMING}: {(now_ms() - (refresh.began_ms or now_ms())) // 1000} s")
        await asyncio.sleep(LOOK_EVERY_S)
    raise Unavailable(f"The refresh did not end within {limit_s:g} s. logs/session-host.log may say why.")


def _progress(text: str) -> None:
    """A line that is written over again, where somebody looks."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{text}")
        sys.stderr.flush()
