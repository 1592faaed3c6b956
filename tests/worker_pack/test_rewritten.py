"""Files of a job as the server brings them home from a worker: written more than once, with a kill in between, or shown
by one that failed."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import cast

from aiohttp import web

from backend_pool.backends.member import Member
from backend_pool.comfy.client import ComfyClient, Timeouts
from backend_pool.files.owner import Owner
from backend_pool.model import Job, JobDocument, JsonDict
from backend_pool.runs.pack_files import PackFiles
from backend_pool.worker_pack.wire import PREFIX
from tests.backend_pool.rig import user_dirs

STATE = {"files": [{"filename": "state.bin", "subfolder": "", "type": "output"}]}


class Killed(Exception):
    """Stands for the end of the process."""


@dataclass
class Worker:
    """One job's directory at a worker. `begins`: where the job's part of the user's own files begins."""

    root: Path
    begins: dict[str, int] = field(default_factory=dict)
    fetched: list[str] = field(default_factory=list)

    def write(self, name: str, content: bytes, at_s: int) -> None:
        """The job writes it, at that time."""
        (self.root / name).parent.mkdir(parents=True, exist_ok=True)
        (self.root / name).write_bytes(content)
        os.utime(self.root / name, (at_s, at_s))

    async def files(self, _request: web.Request) -> web.Response:
        """The list of what it wrote."""
        found = []
        for path in self.root.rglob("*.*"):
            name, stat = path.relative_to(self.root).as_posix(), path.stat()
            entry: JsonDict = {"path": name, "size": stat.st_size, "mtime_ns": stat.st_mtime_ns}
            found.append(entry | {"from": self.begins.get(name, 0), "known": name in self.begins})
        return web.json_response({"files": found})

    async def file(self, request: web.Request) -> web.Response:
        """One of them."""
        name = request.query["path"]
        self.fetched.append(name)
        return web.Response(body=(self.root / name).read_bytes()[int(request.query["from"]) :])


class Server:
    """The server's side of it: each `attempt` is what another process reads out of the document."""

    def __init__(self, root: Path, client: ComfyClient) -> None:
        self.root = root
        self.dirs = user_dirs(root, 1)
        self.document = JobDocument(seq=1, prompt={}, extra_data={}, targets=[], files=[])
        self.killed = False
        self._client = client

    def process(self) -> PackFiles:
        """The next process."""
        self.killed = False
        job = Job(seq=1, prompt_id="one", user_id=1, number=1, created_ms=0, upstream_id="up", upstream_client="c")
        member = cast(Member, SimpleNamespace(client=self._client, info={}, hashes=None, shared=False))
        owner = Owner(self.dirs, "0" * 20)
        return PackFiles(job, self.document, member=member, owner=owner, note=self._note, users_dir=self.root)

    async def _note(self, entries: list[JsonDict]) -> None:
        self.document.files = entries
        if self.killed:
            raise Killed

    def files(self) -> dict[str, bytes]:
        """What the user has."""
        found = (path for path in self.dirs.output.rglob("*") if path.is_file())
        return {path.relative_to(self.dirs.output).as_posix(): path.read_bytes() for path in found}


@asynccontextmanager
async def pair(root: Path) -> AsyncIterator[tuple[Worker, Server]]:
    """Both, and a wire between them."""
    worker, app = Worker(root / "worker"), web.Application()
    app.add_routes([web.get(f"{PREFIX}/jobs/up/files", worker.files), web.get(f"{PREFIX}/jobs/up/file", worker.file)])
    runner = web.AppRunner(app, shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    client = ComfyClient(f"http://127.0.0.1:{runner.addresses[0][1]}", Timeouts(60, 60, 20, 1000))
    try:
        yield worker, Server(root, client)
    finally:
        await client.close()
        await runner.cleanup()


async def test_one_of_the_same_size_is_not_taken_for_the_first(tmp_path: Path) -> None:
    """Written while the server was away."""
    async with pair(tmp_path) as (worker, server):
        worker.write("output/state.bin", b"first", 1)
        await server.process().localize(STATE)
        worker.write("output/state.bin", b"other", 2)
        after = server.process()
        assert await after.missing([STATE])
        await after.bring_rest()
        assert server.files() == {"state.bin": b"other"} and not await after.missing([STATE])
        assert not await server.process().missing([STATE])


async def test_killed_between_the_note_and_the_file(tmp_path: Path) -> None:
    """The first one lies there still."""
    async with pair(tmp_path) as (worker, server):
        worker.write("output/state.bin", b"first", 1)
        first = server.process()
        await first.localize(STATE)
        worker.write("output/state.bin", b"other", 2)
        server.killed = True
        try:
            await first.bring_rest()
        except Killed:
            assert server.files() == {"state.bin": b"first"}
        await server.process().bring_rest()
        assert server.files() == {"state.bin": b"other"}


async def test_what_a_job_adds_to_the_user_s_own_file(tmp_path: Path) -> None:
    """Is added once, whoever looks at it, and goes with the user's own beginning."""
    async with pair(tmp_path) as (worker, server):
        (server.dirs.output / "log.txt").write_bytes(b"mine ")
        worker.begins["output/log.txt"] = 5
        for at_s, content in ((1, b"stub one "), (2, b"stub one two")):
            worker.write("output/log.txt", content, at_s)
            await server.process().bring_rest()
        assert server.files() == {"log.txt": b"mine one two"}
        assert not await server.process().missing([]) and len(worker.fetched) == 2


async def test_what_was_added_to_a_file_that_changed_meanwhile(tmp_path: Path) -> None:
    """Comes under another name, and is itself written on."""
    async with pair(tmp_path) as (worker, server):
        (server.dirs.output / "log.txt").write_bytes(b"longer by now")
        worker.begins["output/log.txt"] = 5
        files = server.process()
        for at_s, content in ((1, b"stub one "), (2, b"stub one two")):
            worker.write("output/log.txt", content, at_s)
            await files.bring_rest()
        assert server.files() == {"log.txt": b"longer by now", "log (1).txt": b"one two"}


async def test_what_was_shown_stays(tmp_path: Path) -> None:
    """In whatever form an output named it; the rest goes with an attempt that ends otherwise."""
    async with pair(tmp_path) as (worker, server):
        for name in ("state.bin", "table.csv", "rest.bin"):
            worker.write(f"output/{name}", name.encode(), 1)
        files = server.process()
        told = {"1": STATE, "2": {"text": ["See table.csv"]}}
        for ui in told.values():
            await files.localize(ui)
        await files.bring_rest()
        files.discard(told)
        assert sorted(server.files()) == ["state.bin", "table.csv"]
        files.discard({})
        assert server.files() == {}
