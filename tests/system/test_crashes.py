"""What survives which death: of the proxy, a backend, a session, the session host. Nothing is lost or shown twice."""

import asyncio
import os
import signal
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.cluster import Cluster, start_cluster
from tests.contract import graphs
from tests.contract.wire import FLAGS
from tests.system.inside import arm, becomes, disarm, pids, socket_of
from tests.system.people import Someone, painting, until_idle
from tests.system.session_process import kill_session, session_pid
from tests.user_sessions.studio import gone

QUICK_JUDGEMENT = {"COMFY_CLUSTER_PROBE_INTERVAL_S": "0.5", "COMFY_CLUSTER_BACKEND_DOWN_AFTER_S": "1.5"}


@pytest.fixture(scope="module")
def mortal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A server whose sessions and session host tests may kill."""
    with start_cluster(tmp_path_factory.mktemp("mortal"), "--engines", "2") as running:
        yield running


@pytest.fixture
async def eve(mortal: Cluster) -> AsyncIterator[Someone]:
    """A user of that server with a running session."""
    someone = Someone(mortal, await asyncio.to_thread(mortal.user, f"eve-{uuid.uuid4().hex[:8]}"))
    assert (await someone.comfy.post("/settings/Mark", "kept")).status == 200
    yield someone
    await someone.leave()


@pytest.mark.parametrize("moment", ["running", "ended meanwhile"])
async def test_a_killed_proxy_loses_no_job_and_shows_none_twice(tmp_path: Path, moment: str) -> None:
    first = await asyncio.to_thread(start_cluster, tmp_path, "--engines", "2")
    try:
        people = [Someone(first, await asyncio.to_thread(first.user, name)) for name in ("ann", "ben")]
        submitted: dict[str, list[str]] = {}
        for number, someone in enumerate(people):
            assert (await someone.comfy.get("/settings")).status == 200
            async with someone.comfy.socket("tab") as socket:
                jobs = [painting(number * 10 + seed, 400 if seed == 0 else 20, "kept") for seed in range(3)]
                submitted[someone.person.name] = [await someone.comfy.submit(job, "tab") for job in jobs]
                await socket.until(lambda frame: frame.kind == "progress")
            await someone.comfy.close()
        sessions = {await session_pid(someone) for someone in people}
        first.kill()
        if moment == "ended meanwhile":
            outputs = first.data_dir / "engines"
            await becomes(lambda: len(list(outputs.rglob("kept_*.png"))) >= 2)
        second = await asyncio.to_thread(start_cluster, tmp_path, "--engines", "2")
        with second:
            for someone in (Someone(second, each.person) for each in people):
                mine = submitted[someone.person.name]
                async with someone.comfy.socket("tab") as socket:
                    await until_idle(socket)
                assert await someone.ids() == ([], [], mine)
                assert [(await someone.job(prompt_id))["status"] for prompt_id in mine] == ["completed"] * 3
                assert [path.name for path in someone.files()] == [f"kept_0000{n}_.png" for n in (1, 2, 3)]
                assert len({await someone.picture(prompt_id) for prompt_id in mine}) == 3
                assert {await session_pid(someone)} <= sessions
                rows = (await someone.comfy.get("/cluster/api/v1/jobs")).json()["jobs"]
                assert [row["attempt"] for row in rows] == [1, 1, 1]  # taken up again, not run again
                await someone.comfy.close()
    finally:
        await asyncio.to_thread(first.clean)


async def test_a_tab_that_waits_through_a_killed_proxy_is_told_the_end(tmp_path: Path) -> None:
    first = await asyncio.to_thread(start_cluster, tmp_path, "--engines", "1")
    try:
        ann = Someone(first, await asyncio.to_thread(first.user, "ann"))
        await arm(first, fault="hang_job", node="KSampler", step=3)
        async with ann.comfy.socket("tab", FLAGS) as socket:
            prompt_id = await ann.comfy.submit(painting(1, steps=9), "tab")
            await socket.until(lambda frame: frame.kind == "progress")
            first.kill()
        await ann.comfy.close()
        with await asyncio.to_thread(start_cluster, tmp_path, "--engines", "1") as second:
            ann = Someone(second, ann.person)
            async with ann.comfy.socket("tab", FLAGS) as socket:
                await disarm(second)
                frames = await socket.job(prompt_id)
            assert "progress" in {frame.kind for frame in frames}
            assert [frame.kind for frame in frames[-3:]] == ["progress_state", "execution_success", "executing"]
            assert "executed" in {frame.kind for frame in frames}
            await ann.comfy.close()
    finally:
        await asyncio.to_thread(first.clean)


async def test_a_backend_killed_in_the_middle_and_the_job_ends_elsewhere(tmp_path: Path) -> None:
    cluster = await asyncio.to_thread(start_cluster, tmp_path, "--engines", "2", env=QUICK_JUDGEMENT)
    with cluster:
        admin = Someone(cluster, await asyncio.to_thread(cluster.user, "boss", admin=True))
        ann = Someone(cluster, await asyncio.to_thread(cluster.user, "ann"))
        async with ann.comfy.socket("tab", FLAGS) as socket:
            prompt_id = await ann.comfy.submit(painting(1, steps=300, prefix="moved"), "tab")
            await socket.until(lambda frame: frame.kind == "progress")
            backends = (await admin.comfy.get("/cluster/api/v1/admin/backends")).json()["backends"]
            (victim,) = [backend["name"] for backend in backends if backend["job_id"] is not None]
            (pid,) = pids(cluster.data_dir, f"--name {victim} ")
            os.kill(pid, signal.SIGKILL)
            frames = await socket.job(prompt_id)
        kinds = [frame.kind for frame in frames]
        assert kinds.count("execution_start") == 1
        assert kinds[kinds.index("execution_start") :].count("progress") == 300
        assert frames[-2].kind == "execution_success"
        assert await ann.ids() == ([], [], [prompt_id])
        assert [path.name for path in ann.files()] == ["moved_00001_.png"]
        (row,) = (await ann.comfy.get("/cluster/api/v1/jobs")).json()["jobs"]
        assert (row["state"], row["attempt"]) == ("succeeded", 2)
        await ann.leave()
        await admin.leave()


async def test_a_killed_session_is_back_with_the_next_request(eve: Someone) -> None:
    async with eve.comfy.socket("tab") as socket:
        prompt_id = await eve.comfy.submit(painting(1, steps=300), "tab")
        await socket.until(lambda frame: frame.kind == "progress")
        for _ in range(2):  # a third time within a minute is a loop
            pid = await kill_session(eve)
            answer = await eve.comfy.get("/settings/Mark")
            assert (answer.status, answer.json()) == (200, "kept")
            assert await session_pid(eve) != pid
        assert (await socket.job(prompt_id))[-2].kind == "execution_success"


async def test_a_killed_session_takes_an_upload_again(eve: Someone) -> None:
    await kill_session(eve)
    answer = await eve.comfy.upload("after.png", b"content" * 50_000)
    assert (answer.status, answer.json()["name"]) == (200, "after.png")


async def test_a_killed_session_host_is_back_too(eve: Someone, mortal: Cluster) -> None:
    async with eve.comfy.socket("tab") as socket:
        prompt_id = await eve.comfy.submit(painting(2, steps=300), "tab")
        await socket.until(lambda frame: frame.kind == "progress")
        (host,) = pids(mortal.data_dir, "user_sessions.host")
        session = await session_pid(eve)
        os.kill(host, signal.SIGKILL)
        await gone(session)
        answer = await eve.comfy.get("/settings/Mark")
        assert (answer.status, answer.json()) == (200, "kept")
        assert (await socket.job(prompt_id))[-2].kind == "execution_success"
    newcomer = Someone(mortal, await asyncio.to_thread(mortal.user, f"new-{uuid.uuid4().hex[:8]}"))
    assert (await newcomer.comfy.get("/settings")).status == 200
    await newcomer.runs(graphs.saved(3))
    await newcomer.leave()


async def test_a_clean_stop_leaves_no_directory_in_the_temporary_folder_and_sessions_stopped_not_failed(
    tmp_path: Path,
) -> None:
    place = tmp_path / ("long" * 25)
    with await asyncio.to_thread(start_cluster, place, "--engines", "0") as first:
        person = await asyncio.to_thread(first.user, "ann")
        ann = Someone(first, person)
        assert (await ann.comfy.get("/settings")).status == 200
        await ann.comfy.close()
        run = socket_of(first, person.slug).parent.parent
        assert run.is_dir() and not run.is_relative_to(first.data_dir)
        assert await asyncio.to_thread(first.stop) == 0
        assert not run.exists()
    with await asyncio.to_thread(start_cluster, place, "--engines", "0") as second:
        ann = Someone(second, person)
        session = (await ann.comfy.get("/cluster/api/v1/session")).json()
        assert (session["state"], session["error"]) == ("stopped", None)
        await ann.comfy.close()
