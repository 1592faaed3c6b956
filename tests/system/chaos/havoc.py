"""The deck of troubles: each action hurts one thing, at random or at a labelled moment of a job."""

import asyncio
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
        Action("engine stopped and continued", _pause(2.0)),
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


def _fault(**order: object) -> Callable[[Stage, random.Random], Awaitable[bool]]:
    async def strike(stage: Stage, chance: random.Random) -> bool:
        return await stage.any_takes(chance, **order)

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
        before = connection.execute(query).fetchone()[0] if state == "ended" else 0
        deadline = monotonic_s() + PATIENCE_S
        while monotonic_s() < deadline:
            if connection.execute(query).fetchone()[0] > before:
                stage.cluster.process.kill()
                return True
            time.sleep(LOOK_S)
        return False
    finally:
        connection.close()
