"""What a worker with the pack waits for between jobs of different users whose results come home over a slow line.

`python -m tests.worker_pack.measure_gap [--jobs 10] [--mb-per-s 5]`, by hand. Each job loads a picture of noise of its
user's, about 20 MB as a PNG, and saves it inverted. Prints, as milliseconds: from the end of a job at the worker to
its file at home, and to the beginning of the next job there.
"""

import argparse
import asyncio
import os
import statistics
import tempfile
from itertools import pairwise
from pathlib import Path

from PIL import Image

from tests.backend_pool.graphs import loaded
from tests.engines import Engine, start_engine
from tests.worker_pack.beside import scene

SIDE = 2600
MB = 1e6


def noise(path: Path) -> None:
    """A picture that does not get smaller."""
    Image.frombytes("RGB", (SIDE, SIDE), os.urandom(3 * SIDE * SIDE)).save(path, compress_level=0)


async def measure(root: Path, started: list[Engine], count: int, bytes_per_s: float) -> None:
    """One job each."""

    def begin(config: Path, *arguments: str) -> Engine:
        started.append(start_engine(root / "engine", "--worker-pack", str(config), *arguments))
        return started[-1]

    async with scene(root, begin) as s:
        s.link.bytes_per_s = bytes_per_s
        for user in range(1, count + 1):
            noise(s.rig.dirs(user).input / "noise.png")
        jobs = [(await s.rig.submit(loaded("noise.png"), user), user) for user in range(1, count + 1)]
        ended = [(await s.rig.final(*job))[0] for job in jobs]
        ended.sort(key=lambda job: job.started_ms or 0)
        home = [(job.ended_ms or 0) - (job.rendered_ms or 0) for job in ended]
        gaps = [(b.started_ms or 0) - (a.rendered_ms or 0) for a, b in pairwise(ended)]
        whole_s = ((ended[-1].ended_ms or 0) - (ended[0].started_ms or 0)) / 1000
        size = max(path.stat().st_size for path in s.rig.dirs(1).output.iterdir())
    print(f"{len(ended)} jobs of {size / MB:.1f} MB at {bytes_per_s / MB:g} MB/s: {whole_s:.1f} s in all")
    for name, values in (("to home", home), ("to the next job", gaps)):
        print(f"{name:16} p50 {statistics.median(values):6.0f}  worst {max(values):6.0f} ms")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=10)
    parser.add_argument("--mb-per-s", type=float, default=5.0)
    given = parser.parse_args()
    started: list[Engine] = []
    with tempfile.TemporaryDirectory() as root:
        try:
            asyncio.run(measure(Path(root), started, given.jobs, given.mb_per_s * MB))
        finally:
            for engine in started:
                engine.kill()


if __name__ == "__main__":
    main()
