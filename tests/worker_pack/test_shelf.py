"""What becomes of an ended job's files when the next job has its turn: put away, served, bounded, nobody else's."""

import asyncio
from pathlib import Path
from typing import IO

import pytest

from backend_pool.worker_pack import shelf as shelves
from backend_pool.worker_pack.carried import Carried
from backend_pool.worker_pack.workspace import Workspace
from tests.worker_pack.test_strays import TAG, Worker, listed


@pytest.fixture
async def worker(tmp_path: Path) -> Worker:
    return Worker(tmp_path)


def write(worker: Worker, prompt_id: str, text: str) -> Carried:
    """A job of the same user that saves, and has a pack save where it asked for at import."""

    def work() -> None:
        (worker.scratch() / TAG / "output" / "a.txt").write_text(text)
        (worker.output / "stray.txt").write_text(f"stray {text}")

    return worker.run(work, prompt_id)


def content(opened: IO[bytes] | None) -> str | None:
    if opened is None:
        return None
    with opened:
        return opened.read().decode()


async def test_the_next_job_of_the_same_user_takes_nothing(worker: Worker) -> None:
    """Same names, same paths; what was being read goes on being read."""
    first = write(worker, "one", "first")
    reading = worker.slot.open(first, "output/a.txt", stray=False)
    before = listed(worker, first)
    await asyncio.to_thread(worker.slot.put_away)
    assert worker.names() == [] and worker.slot.job is None
    second = write(worker, "two", "second")
    assert content(reading) == "first"
    assert worker.slot.of("one") is first and listed(worker, first) == before == ["output/a.txt", "output/stray.txt"]
    for job, text in ((first, "first"), (second, "second")):
        assert content(worker.slot.open(job, "output/a.txt", stray=False)) == text
        assert content(worker.slot.open(job, "output/stray.txt", stray=True)) == f"stray {text}"
    worker.slot.evict("one")
    assert worker.slot.of("one") is None and listed(worker, first) == []
    assert worker.slot.open(first, "output/a.txt", stray=False) is None
    assert content(worker.slot.open(second, "output/a.txt", stray=False)) == "second"
    worker.slot.evict("two")
    assert [path for path in worker.scratch().rglob("*") if path.is_file()] == [] and worker.names() == []


async def test_what_has_been_written_since_is_copied(worker: Worker) -> None:
    """The operator's file stays, and is not the next job's to change."""
    first = write(worker, "one", "first")
    (worker.output / "stray.txt").write_text("the operator's, since")
    worker.slot.put_away()
    (worker.output / "stray.txt").write_text("later")
    assert content(worker.slot.open(first, "output/stray.txt", stray=True)) == "the operator's, since"
    worker.slot.evict("one")
    assert worker.names() == ["stray.txt"]


async def test_a_disk_that_is_full_keeps_the_next_job_away(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is lost; what was moved by then is not moved again."""
    first = write(worker, "one", "first")

    def full(_self: Workspace, *_given: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Workspace, "moved", full)
        with pytest.raises(OSError, match="No space"):
            worker.slot.put_away()
    assert worker.slot.of("one") is first and listed(worker, first) == ["output/a.txt", "output/stray.txt"]
    assert content(worker.slot.open(first, "output/stray.txt", stray=True)) == "stray first"
    worker.slot.put_away()
    assert not worker.slot.busy and listed(worker, first) == ["output/a.txt", "output/stray.txt"]
    worker.slot.evict("one")
    assert list(worker.scratch().iterdir()) == []


async def test_it_is_bounded(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    """What nobody asked for the longest goes; what is asked for stays."""
    monkeypatch.setattr(shelves, "JOBS", 3)
    for number in range(6):
        worker.run(lambda: None, f"job-{number}")
        worker.slot.put_away()
        assert worker.slot.of("job-0") is not None
    kept = [number for number in range(6) if worker.slot.of(f"job-{number}") is not None]
    assert kept == [0, 4, 5] and len(list(worker.scratch().iterdir())) == 3


def test_what_nobody_comes_for_goes(worker: Worker) -> None:
    now = [0.0]
    shelf = shelves.Shelf(lambda: now[0])
    for number in range(2):
        job = Carried(str(number), None, worker.workspace.scratch(TAG, [], []))
        job.touched_s = number
        assert shelf.put(job) is None
    assert shelf.too_many() == []
    now[0] = shelves.UNTOUCHED_S + 0.5
    assert [job.id for job in shelf.too_many()] == ["0"]
    assert shelf.of("0") is None and shelf.of("1") is not None


async def test_the_last_job_goes_too(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    """It ended, no other had a turn since, and nobody comes; not one that ran for longer than files are kept."""
    monkeypatch.setattr(shelves, "UNTOUCHED_S", 50.0)

    def work() -> None:
        (worker.output / "stray.txt").write_text("x")
        assert worker.slot.job is not None
        worker.slot.job.touched_s -= 60.0
        worker.slot.tidy()
        assert worker.slot.busy, "it runs"

    job = worker.run(work)
    worker.slot.tidy()
    assert worker.slot.of("one") is job and worker.names() == ["stray.txt"]
    job.touched_s -= 60.0
    worker.slot.tidy()
    assert worker.slot.job is None and worker.slot.of("one") is None
    assert worker.names() == [] and list(worker.scratch().iterdir()) == []


async def test_inputs_are_not_kept(worker: Worker) -> None:
    """What was sent for the job lies in the store as well; what it wrote stays."""

    def work() -> None:
        for kind in ("input", "output"):
            (worker.scratch() / TAG / kind / "a.txt").write_text("x")

    job = worker.run(work)
    worker.slot.put_away()
    (drawer,) = worker.scratch().iterdir()
    assert [path.name for path in drawer.rglob("*") if path.is_file()] == ["a.txt"]
    assert content(worker.slot.open(job, "output/a.txt", stray=False)) == "x"


async def test_the_drawer_is_the_workers_alone(worker: Worker) -> None:
    """Its name is not to be guessed, and no other account of the machine may look into it."""
    write(worker, "one", "first")
    worker.slot.put_away()
    (drawer,) = worker.scratch().iterdir()
    assert drawer.stat().st_mode & 0o777 == 0o700 and len(drawer.name) > 32
