"""Files in the worker's own directories: a job's own come home and go, whatever anybody else puts there stays."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from backend_pool.engine.engine import build
from backend_pool.engine.options import Options
from backend_pool.engine.pack_host import EngineHost
from backend_pool.worker_pack.carried import Carried
from backend_pool.worker_pack.slot import Slot
from backend_pool.worker_pack.workspace import Workspace

TAG = "a" * 8


class Worker:
    """A slot over an engine's directories, with one thread that executes."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.host = EngineHost(build(Options(root)))
        self.workspace = Workspace(root / "pack", None, 1)
        self.slot = Slot(self.host, self.workspace)
        self.output = Path(self.host.startup.output)

    def run(self, work: Callable[[], None], prompt_id: str = "one") -> Carried:
        """A job that does that in the thread that executes it."""
        job = Carried(prompt_id, None, self.workspace.scratch(TAG, [], []))
        self.slot.take()
        self.slot.begin(job)

        def execute() -> None:
            self.slot.executing(prompt_id)
            work()
            self.slot.executed(prompt_id)

        thread = threading.Thread(target=execute)
        thread.start()
        thread.join()
        return job

    def scratch(self) -> Path:
        """Where directories of jobs are."""
        (own,) = (path for path in (self.root / "pack" / "scratch").iterdir() if path.is_dir())
        return own

    def names(self) -> list[str]:
        """What lies in the worker's own output."""
        return sorted(path.name for path in self.output.rglob("*") if path.is_file())


@pytest.fixture
async def worker(tmp_path: Path) -> Worker:
    return Worker(tmp_path)


def listed(worker: Worker, job: Carried) -> list[str]:
    return [entry["path"] for entry in worker.slot.files(job)]


async def test_what_the_jobs_thread_made(worker: Worker) -> None:
    """By any way of Python's: opened, from a thread of its own, renamed; its own directories are no strays."""

    def work() -> None:
        (worker.output / "sub").mkdir()
        (worker.output / "sub" / "plain.txt").write_text("x")
        os.close(os.open(worker.output / "low.txt", os.O_WRONLY | os.O_CREAT))
        with ThreadPoolExecutor(1) as pool:
            pool.submit((worker.output / "child.txt").write_text, "x").result(10)
        (worker.output / "part").write_text("x")
        (worker.output / "part").rename(worker.output / "renamed.txt")
        (worker.output / "gone.txt").write_text("x")
        (worker.output / "gone.txt").unlink()

    job = worker.run(work)
    expected = ["output/sub/plain.txt", "output/low.txt", "output/child.txt", "output/renamed.txt"]
    assert listed(worker, job) == expected
    content = worker.slot.open(job, "output/low.txt", stray=True)
    assert content is not None
    content.close()
    assert worker.slot.open(job, "output/nothing.txt", stray=True) is None
    worker.slot.evict()
    assert worker.names() == []


async def test_what_others_put_there_stays(worker: Worker) -> None:
    """Another process, a thread of the server's, files from before, also when the job writes to them or moves them."""
    for name in ("diary.txt", "moved.txt"):
        (worker.output / name).write_text("operator's")

    def work() -> None:
        writes = f"open({str(worker.output / 'trainer.safetensors')!r}, 'w').write('x')"
        subprocess.run([sys.executable, "-c", writes], check=True)
        request.set()
        assert answered.wait(10)
        with (worker.output / "diary.txt").open("a") as out:
            out.write("job's")
        (worker.output / "moved.txt").rename(worker.output / "elsewhere.txt")
        (worker.output / "both.txt").write_text("job's")

    def serve() -> None:
        assert request.wait(10)
        (worker.output / "upload.png").write_text("x")
        answered.set()

    request, answered = threading.Event(), threading.Event()
    server = threading.Thread(target=serve)
    server.start()
    job = worker.run(work)
    server.join()
    assert listed(worker, job) == ["output/both.txt"]
    (worker.output / "both.txt").write_text("and the operator's, since")
    worker.slot.evict()
    everything = ["both.txt", "diary.txt", "elsewhere.txt", "trainer.safetensors", "upload.png"]
    assert worker.names() == everything


async def test_between_jobs_nothing_is_anybodys(worker: Worker) -> None:
    """A prompt of the operator's runs in the same thread."""
    worker.run(lambda: None)
    worker.slot.executing("operators")
    (worker.output / "own.png").write_text("x")
    worker.slot.executed("operators")
    job = worker.run(lambda: None, "two")
    assert listed(worker, job) == []
    worker.slot.evict()
    assert worker.names() == ["own.png"]


async def test_handing_over_keeps_nobody_waiting(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server's loop asks for the job meanwhile; the worker is free when it is done."""
    seen: list[bool] = []

    def slow(*_given: object) -> None:
        asked = threading.Thread(target=lambda: seen.append(worker.slot.of("one") is not None and worker.slot.busy))
        asked.start()
        asked.join(10)

    monkeypatch.setattr("backend_pool.worker_pack.slot.hand_over", slow)
    worker.run(lambda: None)
    assert seen == [True] and not worker.slot.busy
