"""A job that comes back from a backend: another one first, ahead of its user's later jobs wherever it goes."""

import shutil
from pathlib import Path

from backend_pool.dispatch.comebacks import Comebacks
from backend_pool.job_state import JobState
from backend_pool.model import Job
from tests.backend_pool.conftest import Start
from tests.backend_pool.graphs import previewed, sampled, saved
from tests.backend_pool.rig import Rig, arm, disarm, rig
from tests.engines import Engine

ANN, BEN, CAT = 1, 2, 3
ONE, NOTHING = frozenset({1}), frozenset[int]()


def came_back(seq: int, user_id: int = BEN, at_s: float = 100.0) -> Job:
    trail = [[int(at_s * 1000), "queued", "it is gone", None, 1]]
    return Job(seq=seq, prompt_id="one", user_id=user_id, number=seq, created_ms=0, trail=trail, avoid=[1])


def test_its_user_leaves_the_backend_to_others_for_a_while() -> None:
    """Bounded by time, and over as soon as the job goes."""
    comebacks = Comebacks(15.0)
    assert comebacks.read(came_back(7), ONE, 100.5)
    assert not comebacks.read(came_back(7), ONE, 101.0), "judged anew, nothing is another"
    assert (comebacks.left_by(BEN), comebacks.left_by(ANN)) == (ONE, NOTHING)
    assert comebacks.over(lambda _seq: True, 114.9) == set() and comebacks.left_by(BEN) == ONE
    assert comebacks.over(lambda _seq: True, 115.0) == {BEN} and comebacks.left_by(BEN) == NOTHING
    assert not comebacks.read(came_back(7), ONE, 115.0), "it came back long ago"
    assert comebacks.read(came_back(8), ONE, 101.0) and comebacks.read(came_back(9), frozenset({2}), 101.0)
    assert comebacks.left_by(BEN) == {1, 2}
    assert comebacks.over(lambda seq: seq != 8, 101.0) == {BEN} and comebacks.left_by(BEN) == {2}
    assert comebacks.read(came_back(9), NOTHING, 101.0) and comebacks.left_by(BEN) == NOTHING
    assert not Comebacks(0.0).read(came_back(7), ONE, 100.0), "switched off"


def test_a_clock_that_is_set_back_keeps_nobody_waiting() -> None:
    """Else the user's jobs would wait for as long as it was set back."""
    comebacks = Comebacks(15.0)
    comebacks.read(came_back(7), ONE, 100.5)
    assert comebacks.over(lambda _seq: True, 40.0) == {BEN} and comebacks.left_by(BEN) == NOTHING
    assert not comebacks.read(came_back(7), ONE, 40.0) and comebacks.left_by(BEN) == NOTHING


def test_no_job_of_its_user_goes_before_it_was_read() -> None:
    """It may need other backends now, and is in the line no more."""
    comebacks = Comebacks(15.0)
    comebacks.returned(7, BEN)
    later, others = came_back(8), came_back(9, ANN)
    assert comebacks.behind(later) and not comebacks.behind(others) and not comebacks.behind(came_back(7))
    comebacks.keep_unread(lambda seq, user: (seq, user) == (7, BEN))
    assert comebacks.behind(later)
    comebacks.read(came_back(7), NOTHING, 100.0)
    assert not comebacks.behind(later)
    comebacks.returned(7, BEN)
    comebacks.keep_unread(lambda _seq, _user: False)
    assert not comebacks.behind(later), "it was cancelled"


async def lose(r: Rig, start: Start, engines: list[Engine]) -> tuple[str, list[str], Engine]:
    """Ann's job keeps one backend, the other one is killed with Ben's first and starts again."""
    for engine in engines:
        await arm(engine.url, fault="hang_job", node="KSampler")
    ann = await r.submit(sampled(), ANN)
    await r.heard.until(ann, "execution_start")
    ben = [await r.submit(sampled(), BEN) for _ in range(3)]
    await r.heard.until(ben[0], "execution_start")
    place = (await r.entry(ben[0], BEN))[0].backend_id or 0
    lost = engines[place - 1]
    lost.kill()
    start("--port", lost.url.rsplit(":", 1)[1], name=lost.base_dir.name)
    return ann, ben, engines[2 - place]


async def in_turn(r: Rig, ben: list[str]) -> list[Job]:
    """Ben's jobs, which began in the order in which they were queued."""
    jobs = [(await r.final(prompt_id, BEN))[0] for prompt_id in ben]
    assert all(job.state is JobState.SUCCEEDED for job in jobs)
    begun = [job.assigned_ms or 0 for job in jobs]
    assert begun == sorted(begun) and [job.attempt for job in jobs] == [2, 1, 1]
    return jobs


async def test_it_goes_back_where_it_was_lost_rather_than_be_passed(tmp_path: Path, start: Start) -> None:
    """The only other backend is busy for longer than it is worth waiting."""
    engines = [start(), start()]
    async with rig(tmp_path, *(engine.url for engine in engines), affinity_s=0.5) as r:
        ann, ben, busy = await lose(r, start, engines)
        first, *_ = await in_turn(r, ben)
        assert first.avoid == [first.backend_id]
        assert (await r.entry(ann, ANN))[0].state is JobState.RUNNING
        await disarm(busy.url)
        assert (await r.final(ann, ANN))[0].state is JobState.SUCCEEDED


async def test_it_waits_a_while_for_another_backend(tmp_path: Path, start: Start) -> None:
    """Others use the one where it was lost meanwhile, its user's later jobs do not."""
    engines = [start(), start()]
    async with rig(tmp_path, *(engine.url for engine in engines), affinity_s=300) as r:
        _, ben, busy = await lose(r, start, engines)
        cat, _ = await r.run(saved(), CAT)
        rows = [(await r.entry(prompt_id, BEN))[0] for prompt_id in ben]
        assert [row.state for row in rows] == [JobState.QUEUED] * 3 and rows[0].avoid == [cat.backend_id]
        await disarm(busy.url)
        first, *_ = await in_turn(r, ben)
        assert first.backend_id != cat.backend_id


async def test_one_whose_files_went_with_a_restart_is_rendered_again(tmp_path: Path, start: Start) -> None:
    """The backend is back before anybody judges it down: only its history says that the files are of another life. The
    job had ended there, so this is held against nobody and is no attempt."""
    engine = start()
    async with rig(tmp_path, engine.url, backend_down_after_s=60) as r:
        await arm(engine.url, fault="slow_view", bytes_per_s=1, count=100)
        prompt_id = await r.submit(previewed(), ANN)
        await r.eventually(lambda: bool(r.pool.members[1].collecting))
        engine.kill()
        shutil.rmtree(engine.base_dir / "temp")  # as a real one does when it starts
        start("--port", engine.url.rsplit(":", 1)[1], name=engine.base_dir.name)
        job, document = await r.final(prompt_id, ANN)
        assert (job.state, job.attempt) == (JobState.SUCCEEDED, 1)
        assert [entry[1] for entry in job.trail].count("assigned") == 2
        (picture,) = document.outputs["2"]["images"]
        assert (r.dirs(ANN).temp / picture["subfolder"] / picture["filename"]).is_file()
