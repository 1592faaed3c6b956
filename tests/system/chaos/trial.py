"""The trial itself: rounds of troubles under load, calm between them, and a summary of what was found.

A round hurts the proxy, the database and sessions, too; after it comes a calm, a steady part in which only engines
suffer, and another calm, between which the proxy must not have come to hold more open files.
"""

import asyncio
import random
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

from proxy.base.clock import monotonic_s
from tests.cluster import processes_of
from tests.system.chaos.base import Base, PostgresBase, Sqlite
from tests.system.chaos.crowd import Player
from tests.system.chaos.havoc import Action, base_actions, engine_actions, proxy_actions, session_actions
from tests.system.chaos.stage import Stage
from tests.system.chaos.verdict import Findings, judge
from tests.system.inside import connected_to, open_files

SLACK = 24
"""Open files more at a calm than at the one before: readers of the database, with three files each, that are opened
when there is work for them, and files that are just being written."""
KEPT = 16
"""Connections to one engine that its client may keep, and keeps or not: they are left out of the count."""
SETTLE_S = 20.0
CALM_S = 150.0
STEADY_S = 3.0
"""For this long the number stays the same before it is taken: tabs look for sessions that have just been started."""


@dataclass(frozen=True)
class Plan:
    """How long and how hard. `seconds` 0 means one round; `brief` leaves out what takes long and does the rest once."""

    seed: int
    seconds: float = 0.0
    users: int = 20
    pause_s: tuple[float, float] = (0.1, 0.6)
    brief: bool = False
    postgres: bool = False


@dataclass
class Summary:
    """What happened."""

    plan: Plan
    strikes: Counter[str] = field(default_factory=Counter)
    missed: Counter[str] = field(default_factory=Counter)
    findings: Findings = field(default_factory=Findings)
    accepted: int = 0
    starts: int = 0
    files: list[tuple[int, int]] = field(default_factory=list)
    """Open files of the proxy before and after each steady part."""
    took_s: float = 0.0

    def __str__(self) -> str:
        lines = [f"seed {self.plan.seed}, {self.took_s:.0f} s, {self.plan.users} users, {self.accepted} jobs accepted"]
        lines.append(f"proxy started {self.starts} times; {self.strikes.total()} troubles:")
        lines += [f"  {count:4} {name}" for name, count in sorted(self.strikes.items())]
        lines += [f"  {count:4} {name}: the moment did not come" for name, count in sorted(self.missed.items())]
        lines.append("jobs: " + ", ".join(f"{count} {end}" for end, count in sorted(self.findings.ends.items())))
        lines.append("attempts: " + ", ".join(f"{n}: {c}" for n, c in sorted(self.findings.attempts.items())))
        lines.append("open files: " + ", ".join(f"{before} -> {after}" for before, after in self.files))
        wrong = self.findings.wrong
        lines.append(f"WRONG: {len(wrong)}" if wrong else "nothing wrong")
        return "\n".join([*lines, *(f"  {text}" for text in wrong[:60])])


async def run(root: Path, plan: Plan) -> Summary:
    """One trial in `root`; leaves nothing running."""
    base: Base = await asyncio.to_thread(PostgresBase, root / "postgres") if plan.postgres else Sqlite()
    stage = Stage(root, base)
    began = monotonic_s()
    summary = Summary(plan)
    try:
        await stage.open()
        await _load(stage, plan, summary, began)
        status = await stage.close()
        if status != 0:
            summary.findings.wrong.append(f"the last proxy ended with status {status}")
        left = [*processes_of(stage.cluster.data_dir).values(), *stage.left()]
        summary.findings.wrong += [f"still runs: {command}" for command in left]
    finally:
        stage.clean()
    summary.starts, summary.took_s = stage.starts, monotonic_s() - began
    return summary


async def _load(stage: Stage, plan: Plan, summary: Summary, began: float) -> None:
    gate = asyncio.Event()
    people = [await stage.person(f"user-{number}") for number in range(1, plan.users + 1)]
    url = stage.cluster.url
    async with AsyncExitStack() as stack:
        players = [Player(url, person, n, plan.seed, gate) for n, person in enumerate(people, start=1)]
        for player in players:
            stack.push_async_callback(player.close)
        stage.cuts = [player.cut for player in players]
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(way) for player in players for way in (player.play(), player.listen())]
            chance = random.Random(plan.seed)
            while True:
                await _round(stage, plan, summary, chance, gate, players)
                if monotonic_s() - began >= plan.seconds:
                    break
            summary.findings = await judge(stage, players)
            summary.accepted = sum(len(player.accepted) for player in players)
            summary.findings.wrong += [
                f"open files grew from {before} to {after}" for before, after in summary.files if after > before + SLACK
            ]
            for task in tasks:
                task.cancel()


async def _round(
    stage: Stage, plan: Plan, summary: Summary, chance: random.Random, gate: asyncio.Event, players: list[Player]
) -> None:
    gate.set()
    beside, alone = _decks(plan, chance)
    await _strike(stage, plan, summary, chance, beside)
    before = await _calm(stage, gate, players)
    gate.set()
    await _strike(stage, plan, summary, chance, alone)
    after = await _calm(stage, gate, players, before + SLACK)
    summary.files.append((before, after))


def _decks(plan: Plan, chance: random.Random) -> tuple[list[Action], list[Action]]:
    """What happens while the proxy is killed too, and what happens to engines alone."""
    engines = engine_actions()
    proxy = [*proxy_actions(), *session_actions(), *base_actions(postgres=plan.postgres)]
    if not plan.brief:
        return chance.sample([*proxy, *engines], len(proxy) + len(engines)), chance.sample(engines, len(engines))
    engines = [action for action in chance.sample(engines, len(engines)) if action.brief]
    half = len(engines) // 2
    beside = [action for action in proxy if action.brief] + engines[:half]
    return chance.sample(beside, len(beside)), engines[half:]


async def _strike(stage: Stage, plan: Plan, summary: Summary, chance: random.Random, deck: list[Action]) -> None:
    for action in deck:
        counts = summary.strikes if await action.strike(stage, chance) else summary.missed
        counts[action.name] += 1
        await asyncio.sleep(chance.uniform(*plan.pause_s))


async def _calm(stage: Stage, gate: asyncio.Event, players: list[Player], few: int = 0) -> int:
    """Mend everything, let every job end; the proxy's open files once they are `few` or have had time to become so."""
    gate.clear()
    await stage.mend()
    until = monotonic_s() + CALM_S
    while stage.active() or any(player.busy or not player.listening for player in players):
        if monotonic_s() > until:
            raise AssertionError(f"No calm: {stage.unfinished()}, {[p.person.name for p in players if p.busy]} busy")
        await asyncio.sleep(0.1)
        await stage.mend()
    for player in players:  # each has asked something of this proxy: what that keeps open is there at every calm
        await player.get("/queue")
    await asyncio.gather(*(player.get("/settings") for player in players))  # and each of a session, with its tab's leg
    return await _settled(stage, few)


async def _settled(stage: Stage, few: int) -> int:
    """The number once it is `few`; without that, once it is steady."""
    until, since, last = monotonic_s() + SETTLE_S, monotonic_s(), 0
    while (count := _held(stage)) > few and (now := monotonic_s()) < until:
        if count != last:
            since, last = now, count
        elif not few and now - since >= STEADY_S:
            break
        await asyncio.sleep(0.2)
    return count


def _held(stage: Stage) -> int:
    """Open files of the proxy that a calm one does not come to hold more of."""
    pid = stage.cluster.process.pid
    kept = connected_to(pid, [int(url.rsplit(":", 1)[1]) for url in stage.urls().values()])
    return open_files(pid) - sum(min(count, KEPT) for count in kept.values())
