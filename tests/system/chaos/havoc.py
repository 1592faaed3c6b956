"""The deck of troubles: each action hurts one thing, at random or at a labelled moment of a job."""

import asyncio
import contextlib
import os
import random
import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from proxy.base.clock import monotonic_s
from tests.system.chaos.stage import Stage

CRASH_POINTS = ("before_submit_answer", "after_submit", "mid_step", "before_executed", "before_history")
STATES = ("assigned", "running", "collecting", "ended")
LOOK_S = 0.002
PATIENCE_S = 6.0


@dataclass(frozen=True)
class Action:
    """One trouble."""

    name: str
    strike: Callable[[Stage, random.Random], Awaitable[bool]]
    """False: the moment it waits for did not come."""
    brief: bool = True
    """Short enough, and like no other, for the trial among the tests."""


def engine_actions() -> list[Action]:
    """What befalls engines."""
    crashes = [Action(f"engine dies {point}", _fault(fault="crash", at=point)) for point in CRASH_POINTS]
    return [
        *crashes,
        Action("engine killed", _signal(signal.SIGKILL)),
        Action("engine stopped and continued", _pause(1.0)),
        Action("engine stopped for long", _pause(5.0), brief=False),
        Action("engine's server hangs", _fault(fault="hang_server", seconds=2.0)),
        Action("job hangs", _fault(fault="hang_job", seconds=2.0)),
        Action("answer lost", _fault(fault="lose_answer")),
        Action("prompt refused twice", _fault(fault="refuse", count=2)),
        Action("sockets dropped", _fault(fault="drop_ws", count=2)),
        Action("download cut", _fault(fault="truncate_view")),
        Action("download slow", _fault(fault="slow_view", bytes_per_s=400)),
        Action("out of memory", _fault(fault="oom", node="KSampler", step=1)),
    ]


def proxy_actions() -> list[Action]:
    """What befalls the proxy."""
    at_states = [Action(f"proxy killed as a job is {state}", _kill_at(state)) for state in STATES]
    return [*at_states, Action("proxy killed", _kill, brief=False), Action("proxy restarted", _restart)]


def session_actions() -> list[Action]:
    """What befalls the session host, sessions, and their users' sockets."""
    return [
        Action("session killed", _session(0.0)),
        Action("session stopped and continued", _session(4.0), brief=False),
        Action("session host killed", _host(0.0)),
        Action("session host stopped and continued", _host(5.0), brief=False),
        Action("tabs cut off", _cut),
    ]


def base_actions(*, postgres: bool) -> list[Action]:
    """What befalls the database."""
    if not postgres:
        return [
            Action("database locked", _base("lock", 0.8)),
            Action("database locked for long", _base("lock", 12.0), brief=False),
        ]
    return [
        Action("database restarted", _base("restart", 2.0)),
        Action("database crashed", _base("crash", 4.0), brief=False),
        Action("database frozen", _base("freeze", 3.0), brief=False),
    ]


def _session(stopped_s: float) -> Callable[[Stage, random.Random], Awaitable[bool]]:
    async def strike(stage: Stage, chance: random.Random) -> bool:
        pid = await stage.signal_session(chance, signal.SIGSTOP if stopped_s else signal.SIGKILL)
        if pid is not None and stopped_s:
            await asyncio.sleep(stopped_s)
            with contextlib.suppress(ProcessLookupError):  # its host may have ended it
                os.kill(pid, signal.SIGCONT)
        return pid is not None

    return strike


def _host(stopped_s: float) -> Callable[[Stage, random.Random], Awaitable[bool]]:
    async def strike(stage: Stage, _chance: random.Random) -> bool:
        found = await stage.signal_host(signal.SIGSTOP if stopped_s else signal.SIGKILL)
        await asyncio.sleep(stopped_s)
        if stopped_s:
            await stage.signal_host(signal.SIGCONT)
        return found

    return strike


async def _cut(stage: Stage, chance: random.Random) -> bool:
    for cut in chance.sample(stage.cuts, len(stage.cuts) // 2):
        cut()
    return True


def _base(kind: str, seconds: float) -> Callable[[Stage, random.Random], Awaitable[bool]]:
    async def strike(stage: Stage, _chance: random.Random) -> bool:
        await stage.base.hurt(kind, seconds)
        return True

    return strike


def _fault(**order: object) -> Callable[[Stage, random.Random], Awaitable[bool]]:
    async def strike(stage: Stage, _chance: random.Random) -> bool:
        return await stage.strikes(**order)

    return strike


def _signal(number: signal.Signals) -> Callable[[Stage, random.Random], Awaitable[bool]]:
    async def strike(stage: Stage, chance: random.Random) -> bool:
        await stage.signal(chance.choice(stage.names()), number)
        return True

    return strike


def _pause(seconds: float) -> Callable[[Stage, random.Random], Awaitable[bool]]:
    async def strike(stage: Stage, chance: random.Random) -> bool:
        name = chance.choice(stage.names())
        await stage.signal(name, signal.SIGSTOP)
        await asyncio.sleep(seconds)
        await stage.signal(name, signal.SIGCONT)
        return True

    return strike


def _kill_at(state: str) -> Callable[[Stage, random.Random], Awaitable[bool]]:
    async def strike(stage: Stage, _chance: random.Random) -> bool:
        if state == "collecting":  # files are late only where their event was missed
            for name in stage.names():
                await stage.order(name, fault="drop_ws", node="SaveImage")
        reached = await asyncio.to_thread(_watch, stage, state)
        await stage.kill_proxy()
        return reached

    return strike


async def _kill(stage: Stage, _chance: random.Random) -> bool:
    await stage.kill_proxy()
    return True


async def _restart(stage: Stage, _chance: random.Random) -> bool:
    await stage.stop_proxy()
    return True


def _watch(stage: Stage, state: str) -> bool:
    """Kill the proxy the moment a job is in that state, or one more has ended; False when it did not come. Blocking."""
    connection = stage.database()
    try:
        marks = "('succeeded', 'failed', 'cancelled')" if state == "ended" else f"('{state}')"
        query = f"SELECT count(*) FROM jobs WHERE state IN {marks}"
        before = next(iter(connection.execute(query)))[0] if state == "ended" else 0
        deadline = monotonic_s() + PATIENCE_S
        while monotonic_s() < deadline:
            if next(iter(connection.execute(query)))[0] > before:
                stage.cluster.process.kill()
                return True
            time.sleep(LOOK_S)
        return False
    finally:
        connection.close()
