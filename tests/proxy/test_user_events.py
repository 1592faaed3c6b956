"""Who hears of a job: the tabs of its user with the submitter's id, and nobody else."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, MutableMapping
from pathlib import Path
from typing import Any

import pytest
from sqlmodel import SQLModel
from starlette.websockets import WebSocket

from backend_pool.books.share import Share
from backend_pool.comfy.frames import encode
from backend_pool.forecasts.outlooks import Outlooks
from backend_pool.forecasts.scene import Case, Scene, Seat
from backend_pool.job_state import ACTIVE
from backend_pool.jobs.queries import JobQueries
from backend_pool.jobs.store import JobStore
from backend_pool.jobs.submission import Submission
from backend_pool.model import Job
from backend_pool.placement.line import Line
from backend_pool.placement.values import Kind, Policy, Spot, Waiting
from proxy.base.database import Database, sqlite_url
from proxy.base.tasks import Tasks
from proxy.tabs import queue_news, user_events
from proxy.tabs.queue_news import QueueNews
from proxy.tabs.user_events import UserEvents
from proxy.tabs.user_socket import UserSocket

WAIT_S = 10.0
ANN, BEN = 1, 2
START = encode("execution_start", {"prompt_id": "p"})
RUNS = encode("executing", {"node": "3", "prompt_id": "p"})
END = encode("executing", {"node": None, "prompt_id": "p"})
Message = MutableMapping[str, Any]


class Tab:
    """A browser that reads all it is sent."""

    def __init__(self, user_id: int, sid: str) -> None:
        self._said: asyncio.Queue[Message] = asyncio.Queue()
        self._heard: asyncio.Queue[Message] = asyncio.Queue()
        self._said.put_nowait({"type": "websocket.connect"})
        scope = {"type": "websocket", "headers": []}
        web_socket = WebSocket(scope, self._said.get, self._heard.put)
        self.socket = UserSocket(web_socket, user_id, sid, limit=100, max_upload_mb=1)
        self._web_socket = web_socket

    async def serve(self) -> None:
        await self._web_socket.accept()
        await self.socket.serve(asyncio.sleep(3600))

    async def announce(self) -> None:
        """Tell feature flags, as the frontend does first of all."""
        self._said.put_nowait({"type": "websocket.receive", "text": encode("feature_flags", {})})
        assert json.loads(await self.next())["type"] == "feature_flags"

    def ask(self, text: str) -> None:
        """Send a later message."""
        self._said.put_nowait({"type": "websocket.receive", "text": text})

    def close(self) -> None:
        self._said.put_nowait({"type": "websocket.disconnect", "code": 1000})

    async def next(self) -> Any:
        """The next frame, or the code with which the socket was closed."""
        message = await asyncio.wait_for(self._heard.get(), WAIT_S)
        if message["type"] == "websocket.accept":
            return await self.next()
        return message["code"] if message["type"] == "websocket.close" else message["text"]

    async def count(self) -> int:
        """What the next frame, a `status`, counts."""
        frame = json.loads(await self.next())
        assert frame["type"] == "status", frame
        return int(frame["data"]["status"]["exec_info"]["queue_remaining"])


async def until(holds: Callable[[], bool]) -> None:
    """Wait for what a socket has read."""
    async with asyncio.timeout(WAIT_S):
        while not holds():
            await asyncio.sleep(0.01)


class House:
    """The events of a proxy, with its jobs and the tabs that are open."""

    def __init__(self, db: Database) -> None:
        self.store = JobStore(db, 100, 100)
        self.tasks = Tasks()
        self.events = UserEvents(JobQueries(db), self.tasks)

    @contextlib.asynccontextmanager
    async def tab(self, user_id: int, sid: str, waiting: int = 0) -> AsyncIterator[Tab]:
        """A tab that has been told how many jobs wait, and with what id it submits."""
        tab = Tab(user_id, sid)
        await self.events.join(tab.socket)
        async with asyncio.TaskGroup() as group:
            group.create_task(tab.serve())
            first = json.loads(await tab.next())
            assert first["data"] == {"status": {"exec_info": {"queue_remaining": waiting}}, "sid": sid}
            yield tab
            self.events.leave(tab.socket)
            tab.close()

    async def job(self, prompt_id: str, user_id: int = ANN, client_id: str | None = "one") -> Job:
        return await self.store.submit(Submission(user_id, prompt_id, client_id, {}, {}, []))


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    db = Database(sqlite_url(tmp_path / "cluster.db"))
    SQLModel.metadata.create_all(db.writer)
    made = House(db)
    yield made
    await made.tasks.stop()
    await asyncio.to_thread(db.close)


async def test_frames_go_to_the_submitters_id_within_its_user(house: House) -> None:
    async with house.tab(ANN, "one") as one, house.tab(ANN, "two") as two, house.tab(BEN, "one") as bens:
        house.events.frame(await house.job("p"), START)
        house.events.frame(await house.job("q", client_id=None), RUNS)  # ComfyUI broadcasts these
        house.events.frame(await house.job("r", BEN), END)
        assert [await one.next(), await one.next()] == [START, RUNS]
        assert await two.next() == RUNS
        assert await bens.next() == END


async def test_a_tab_that_comes_back_is_told_what_runs_until_it_ends(house: House) -> None:
    job = await house.job("p")
    house.events.frame(job, START)
    house.events.frame(job, RUNS)
    async with house.tab(ANN, "one", waiting=1) as back:
        assert [await back.next(), await back.next()] == [START, RUNS]
    house.events.frame(job, END)
    async with house.tab(ANN, "one", waiting=1) as late:
        house.events.frame(job, START)
        assert await late.next() == START  # nothing came before it


async def test_a_job_that_left_the_queue_is_not_replayed(house: House) -> None:
    job = await house.job("p")
    house.events.frame(job, START)
    house.events.forget(job)
    async with house.tab(ANN, "one", waiting=1) as tab:
        house.events.frame(job, RUNS)
        assert await tab.next() == RUNS


async def test_the_last_status_is_the_truth_however_fast_the_queue_changes(house: House) -> None:
    async with house.tab(ANN, "one") as one, house.tab(ANN, "two") as two, house.tab(BEN, "one") as bens:
        for number in range(5):
            await house.job(f"p{number}")
            house.events.queue_changed(ANN)
        counts = [await one.count()]
        while counts[-1] != 5:
            counts.append(await one.count())
        assert counts == sorted(counts)
        while await two.count() != 5:
            pass
        await house.store.cancel(ANN, None, ACTIVE)
        house.events.queue_changed(ANN)
        house.events.queue_changed(BEN)
        assert await one.count() == 0
        assert await bens.count() == 0


async def test_a_status_that_could_not_be_counted_is_told_later(
    house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Clients wait for a 0, and nothing else may change for hours."""
    monkeypatch.setattr(user_events, "STATUS_AGAIN_S", 0.05)
    async with house.tab(ANN, "one") as one:
        await house.job("p")
        aside = (tmp_path / "cluster.db").rename(tmp_path / "aside.db")
        house.events.queue_changed(ANN)
        await until(lambda: "status not told yet" in caplog.text)
        aside.rename(tmp_path / "cluster.db")
        assert await one.count() == 1


async def test_news_of_a_session_are_for_the_frontend_alone(house: House) -> None:
    """Programs hear nothing that ComfyUI does not say."""
    async with house.tab(ANN, "one") as page, house.tab(ANN, "two") as program, house.tab(BEN, "one") as bens:
        await page.announce()
        await bens.announce()
        house.events.session_news(ANN)
        for job in (await house.job("p", ANN, client_id=None), await house.job("q", BEN)):
            house.events.frame(job, START)
        assert json.loads(await page.next()) == {"type": "cluster_session", "data": {}}
        assert [await page.next(), await program.next(), await bens.next()] == [START] * 3


@pytest.mark.parametrize("wish", ['{"type":"cluster_queue"}', '{"type": "cluster_queue", "data": {}}'])
async def test_what_jobs_may_expect_is_pushed_to_the_tabs_of_their_user_that_asked(
    house: House, monkeypatch: pytest.MonkeyPatch, wish: str
) -> None:
    monkeypatch.setattr(queue_news, "now_ms", lambda: 1_000_000)  # the scene's own time: no start is told that is past
    line, cases = Line(Policy()), {}
    for seq, user in ((7, ANN), (8, BEN)):
        waiting = Waiting(seq, user, float(seq), Kind(frozenset({1})))
        line.know(user, Share())
        line.add(waiting)
        cases[seq] = Case(waiting, {1: 10.0})
    outlooks = Outlooks()
    outlooks.on_change.append(QueueNews(outlooks, house.events).changed)
    async with house.tab(ANN, "one") as page, house.tab(ANN, "two") as program, house.tab(BEN, "one") as bens:
        for tab in (page, program, bens):
            await tab.announce()
        page.ask(wish)
        program.ask("{}")
        await until(lambda: page.socket.wants_queue)
        await outlooks.renew(Scene(line, 1000.0, [Seat(Spot(1), "busy", 1005.0, 5, 99)], cases))
        house.events.frame(await house.job("o", ANN), START)
        house.events.frame(await house.job("q", BEN), START)
        house.events.frame(await house.job("p", ANN, client_id="two"), START)
        frame = json.loads(await page.next())
        assert frame["type"] == "cluster_queue" and frame["data"]["now_ms"] > 0
        job = {"id": 7, "position": 1, "expected_start_ms": 1_005_000, "expected_end_ms": 1_015_000}
        assert frame["data"]["jobs"] == [job | {"reason": "the GPU is busy"}]
        assert [await tab.next() for tab in (page, program, bens)] == [START] * 3


async def test_one_of_two_tabs_with_one_id_leaves_the_other_its_frames(house: House) -> None:
    job = await house.job("p")
    async with house.tab(ANN, "one", waiting=1) as stays:
        async with house.tab(ANN, "one", waiting=1):
            assert house.events.connected() == 2
        house.events.frame(job, START)
        assert await stays.next() == START
    assert house.events.connected() == 0


async def test_the_oldest_tab_gives_way(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(user_events, "TABS_LIMIT", 2)
    async with (
        house.tab(ANN, "one") as first,
        house.tab(ANN, "two"),
        house.tab(BEN, "one") as bens,
        house.tab(ANN, "three"),
    ):
        assert await first.next() == 4000
        house.events.frame(await house.job("p", BEN), START)
        assert await bens.next() == START
