"""`comfy-cluster bench`: what this installation costs, as ratios within one run; times are the machine's."""

import asyncio
import json
import shutil
from dataclasses import asdict

import typer

from proxy.bench import forward as bench_forward
from proxy.bench import jobs as bench_jobs
from proxy.bench import load as bench_load
from proxy.bench import placement as bench_placement
from proxy.bench import recovery as bench_recovery
from proxy.bench.plan import Load

DISPATCHED = 40
"""Jobs that measure what dispatch adds, each way."""


def run_bench(*, jobs: int, backend: str | None, forward_seconds: float, pack: bool = False) -> None:
    """Run and print both parts. Raises Unavailable when something does not start."""
    typer.echo(f"Jobs: {jobs} each way, one at a time, taking turns ({backend or 'embedded engine'})")
    typer.echo(bench_jobs.report(asyncio.run(bench_jobs.measure(jobs, backend, pack=pack))))
    if forward_seconds > 0:
        chp = shutil.which("configurable-http-proxy")
        typer.echo(
            "\nForwarded requests, 10 kB bodies" + ("" if chp else " (configurable-http-proxy is not installed)")
        )
        rounds = max(1, round(forward_seconds / 4))
        candidates = asyncio.run(bench_forward.run(forward_seconds / rounds, rounds, 32, chp))
        typer.echo(bench_forward.report(candidates))


def run_load(load: Load, *, queued: int, as_json: bool) -> None:
    """Run and print the load, one way of placing after the other, then a crash, a long queue, and what placing and
    dispatching a job cost. Raises Unavailable.

    With `as_json` one object is all that is printed; else each table comes when it is complete.
    """

    def say(text: str) -> None:
        if not as_json:
            typer.echo(text)

    say(f"{load.jobs} jobs of {load.users} users on {load.engines} engines, seed {load.seed}; for each way:")
    found = {}
    for way in bench_load.WAYS:
        found[way.name] = asyncio.run(bench_load.measure(load, way))
        say(f"  {way.name}: {found[way.name].makespan_s:.0f} s")
    say(bench_load.table(found))
    say(f"\n{bench_load.waits(found)}")
    crash = asyncio.run(bench_recovery.recovery())
    say(f"\n{crash}")
    behind = asyncio.run(bench_recovery.behind(queued, load.engines)) if queued else None
    if behind is not None:
        say(f"\n{behind}")
    say(f"\nOne placement, processor time:\n{bench_placement.costs()}")
    overhead = asyncio.run(bench_jobs.measure(DISPATCHED, None))
    say(f"\nA job that takes no time, {DISPATCHED} each way:\n{bench_jobs.report(overhead)}")
    if as_json:
        parts = {"ways": {name: asdict(each) for name, each in found.items()}, "recovery": asdict(crash)}
        whole = {"load": asdict(load), **parts, "behind": None if behind is None else asdict(behind)}
        typer.echo(json.dumps({**whole, "jobs_ms": {way.name: way.times_ms for way in overhead}}))
