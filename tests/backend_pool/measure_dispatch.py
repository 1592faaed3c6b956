"""What a long queue costs the dispatcher: placing, reading and the event loop, over rows that are really there.

`python -m tests.backend_pool.measure_dispatch [--jobs 100000] [--users 1000] [--engines 4] [--seconds 30]`, by hand.
Jobs are written to the database directly, as an earlier process would have left them. Where the loop was held longer
than HELD_S, the innermost lines of ours that held it are named.
"""

import argparse
import asyncio
import gc
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlmodel import insert

from backend_pool.dispatch.foresight import Foresight
from backend_pool.dispatch.queue_mirror import QueueMirror
from backend_pool.dispatch.turns import Turns
from backend_pool.job_state import JobState
from backend_pool.jobs.queue_reads import QueueReads
from backend_pool.jobs.store import JobStore
from backend_pool.model import Job, JobDocument
from backend_pool.placement.line import Line
from proxy.base.database import Database
from proxy.base.settings import Settings
from tests.backend_pool.graphs import sampled
from tests.backend_pool.rig import QUICK, Heard, Rig, assemble, open_database, running
from tests.engines import start_engine

HELD_S = 0.02
TICK_S = 0.002
MODELS = ("v1-5-pruned-emaonly-fp16.safetensors", "sd_xl_base_1.0.safetensors")
WATCHED = (
    (Line, "next"),
    (Turns, "sync"),
    (QueueReads, "census"),
    (QueueMirror, "refresh"),
    (Foresight, "scene"),
    (Line, "copy"),
)


class Watch:
    """Durations by name; how long each callback held the loop, in its thread's own processor time, and where."""

    def __init__(self) -> None:
        self.took_s: dict[str, list[float]] = defaultdict(list)
        self.held: Counter[str] = Counter()
        self._began_s: float | None = None
        self._collecting_s = 0.0

    def begin(self) -> None:
        """Look at the loop of this thread from now on."""
        plain, took_s = asyncio.Handle._run, self.took_s["loop held"]

        def run(handle: asyncio.Handle) -> None:
            began_s = self._began_s = time.thread_time()
            try:
                plain(handle)
            finally:
                self._began_s = None
                took_s.append(time.thread_time() - began_s)

        asyncio.Handle._run = run  # type: ignore[method-assign, assignment]
        gc.callbacks.append(self._collected)
        threading.Thread(target=self._sample, args=(threading.get_ident(),), daemon=True).start()

    async def tick(self) -> None:
        """How late a short sleep ends: the machine's other work counts, too."""
        while True:
            slept_s = time.perf_counter()
            await asyncio.sleep(TICK_S)
            self.took_s["loop late"].append(time.perf_counter() - slept_s - TICK_S)

    def _collected(self, phase: str, facts: dict[str, int]) -> None:
        """The interpreter's own garbage collection holds the loop, too."""
        if phase == "start":
            self._collecting_s = time.thread_time()
        else:
            took_s = time.thread_time() - self._collecting_s
            self.took_s[f"garbage collection {facts['generation']}"].append(took_s)

    def _sample(self, thread: int) -> None:
        clock = time.pthread_getcpuclockid(thread)
        while True:
            time.sleep(TICK_S)
            began_s = self._began_s
            if began_s is not None and time.clock_gettime(clock) - began_s > HELD_S:
                stack = traceback.extract_stack(sys._current_frames()[thread])
                ours = [f"{Path(f.filename).name}:{f.lineno} {f.name}" for f in stack if "/asyncio/" not in f.filename]
                self.held[" < ".join(reversed(ours[-4:]))] += 1

    def times(self, owner: type, name: str) -> None:
        """Time each call of a method in processor time; of a coroutine from its call to its end."""
        plain: Callable[..., Any] = getattr(owner, name)
        took_s = self.took_s[f"{owner.__name__}.{name}"]

        async def awaited(*args: Any, **more: Any) -> Any:
            with timed(took_s):
                return await plain(*args, **more)

        def called(*args: Any, **more: Any) -> Any:
            with timed(took_s, time.thread_time):
                return plain(*args, **more)

        setattr(owner, name, awaited if asyncio.iscoroutinefunction(plain) else called)

    def lines(self) -> Iterator[str]:
        """A table."""
        for name, took_s in self.took_s.items():
            ranked = sorted(took_s) or [0.0]
            figures = [ranked[len(ranked) // 2], ranked[len(ranked) * 99 // 100], ranked[-1]]
            yield f"| {name} | {len(took_s)} | " + " | ".join(f"{1000 * figure:.2f}" for figure in figures) + " |"
        for where, count in self.held.most_common(12):
            yield f"held: {count} x {where}"


@contextmanager
def timed(took_s: list[float], clock: Callable[[], float] = time.perf_counter) -> Iterator[None]:
    """Note how long it takes."""
    began_s = clock()
    try:
        yield
    finally:
        took_s.append(clock() - began_s)


def fill(db: Database, jobs: int, users: int) -> None:
    """So many waiting jobs, users in turn, of one of two models each."""
    row = Job(prompt_id="", user_id=0, number=0.0, state=JobState.QUEUED, created_ms=1).model_dump()
    document = JobDocument(seq=0, prompt={}, extra_data={}, targets=["9"]).model_dump()
    for start in range(0, jobs, 5000):
        rows, documents = [], []
        for seq in range(start + 1, min(start + 5000, jobs) + 1):
            prompt = sampled(1)
            prompt["4"]["inputs"]["ckpt_name"] = MODELS[seq % users % len(MODELS)]
            place = {"seq": seq, "prompt_id": f"job-{seq}", "user_id": seq % users + 1, "number": float(seq)}
            rows.append(row | place)
            documents.append(document | {"seq": seq, "prompt": prompt})

        def work(s: Any, rows: list[Any] = rows, documents: list[Any] = documents) -> None:
            s.exec(insert(Job), params=rows)
            s.exec(insert(JobDocument), params=documents)

        db.write_now(work)


async def measured(root: Path, urls: list[str], given: argparse.Namespace, watch: Watch) -> str:
    """Serve the queue for a while."""
    settings = Settings.model_validate({"data_dir": root, **QUICK, "job_poll_s": 2.0})
    db = open_database(root)
    fill(db, given.jobs, given.users)
    watch.begin()
    store = JobStore(db, given.jobs, settings.history_limit)
    r = assemble(root, listener=Heard(), store=store, db=db, settings=settings)
    began_s = time.perf_counter()
    async with running(r):
        r.tasks.start("ticks", watch.tick())
        await join(r, urls)
        await asyncio.sleep(given.seconds)
        done = sum(member.done for member in r.pool.members.values())
        took_s = time.perf_counter() - began_s
    return f"{given.jobs:,} jobs of {given.users:,} users, {len(urls)} engines: {done} jobs done in {took_s:.0f} s"


async def join(r: Rig, urls: list[str]) -> None:
    """Register them; nobody waits for them to be idle, which they hardly are."""
    for url in urls:
        await r.registry.add(url)
    await r.pool.refresh()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("jobs", 100_000), ("users", 1_000), ("engines", 4), ("seconds", 30)):
        parser.add_argument(f"--{name}", type=int, default=default)
    given, watch = parser.parse_args(), Watch()
    for owner, name in WATCHED:
        watch.times(owner, name)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        engines = [start_engine(root / f"engine-{n}", "--step-ms", "20") for n in range(given.engines)]
        try:
            print(asyncio.run(measured(root, [engine.url for engine in engines], given, watch)))
        finally:
            for engine in engines:
                engine.stop()
    print("| what | times | ms (median) | ms (99 %) | ms (worst) |\n|---|---|---|---|---|")
    print("\n".join(watch.lines()))


if __name__ == "__main__":
    main()
