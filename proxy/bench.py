"""`comfy-cluster bench`: what this installation costs, as ratios within one run; times are the machine's."""

import asyncio
import shutil

import typer

from proxy import bench_forward, bench_jobs


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
