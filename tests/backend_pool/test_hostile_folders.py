"""What a session does to its user's folders while a job runs: the job may fail, the proxy goes on at once."""

import contextlib
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path

from backend_pool.comfy.client import FileRef
from backend_pool.files.user_folder import user_folder
from backend_pool.job_state import JobState
from tests.backend_pool.file_backend import FileBackend
from tests.backend_pool.rig import rig
from tests.backend_pool.strange_backend import serving
from tests.engine.graphs import node

FOLDER = user_folder(f"{1:020x}")
SAVE = {"2": node("SaveImage", filename_prefix="x")}
LATE_S = 50.0


@contextlib.contextmanager
def let_go(*fifos: Path) -> Iterator[None]:
    """Whoever waits at one of them is let go late: a proxy that waits fails the test instead of hanging it."""
    readers: list[Path] = []

    def open_and_close() -> None:
        for fifo in fifos:
            with contextlib.suppress(OSError):
                os.close(os.open(fifo, os.O_WRONLY | os.O_NONBLOCK))  # an error unless somebody waits to read
                readers.append(fifo)
            with contextlib.suppress(OSError):
                os.close(os.open(fifo, os.O_RDWR | os.O_NONBLOCK))

    timer = threading.Timer(LATE_S, open_and_close)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
    assert readers == []


async def test_a_fifo_in_the_place_of_an_input_stops_nobody(tmp_path: Path) -> None:
    """Put there between hashing and sending, where opening it would hold the whole event loop for ever."""
    backend = FileBackend(root=tmp_path / "backend", ui="{}")
    backend.root.mkdir()
    async with serving(backend), rig(tmp_path, backend.url) as r:
        mine = r.dirs(1).input / "a.bin"
        mine.write_bytes(b"a" * 1000)
        client = r.pool.members[1].client
        real = client.has

        async def has(ref: FileRef, size: int) -> bool:
            mine.unlink()
            os.mkfifo(mine)
            return await real(ref, size)

        client.has = has  # type: ignore[method-assign]
        with let_go(mine):
            job, document = await r.run(SAVE | {"1": node("LoadAny", file="a.bin")})
        assert job.state is JobState.FAILED and "no plain file" in document.messages[-1][1]["exception_message"]
        client.has = real  # type: ignore[method-assign]
        mine.unlink()
        mine.write_bytes(b"b" * 1000)
        assert (await r.run(SAVE | {"1": node("LoadAny", file="a.bin")}))[0].state is JobState.SUCCEEDED


async def test_fifos_among_the_partial_files_stop_nobody(tmp_path: Path) -> None:
    """Each name that could be guessed, were there no random part in it, would hold a thread that all jobs share."""
    images = [{"filename": "x_00001_.bin", "subfolder": FOLDER, "type": "output"}]
    backend = FileBackend(root=tmp_path / "backend", ui=json.dumps({"2": {"images": images}}))
    made = backend.path("output", FOLDER, "x_00001_.bin")
    made.parent.mkdir(parents=True)
    made.write_bytes(b"made")
    async with serving(backend), rig(tmp_path, backend.url) as r:
        folder = r.dirs(1).output / ".incoming"
        folder.mkdir()
        fifos = [folder / f"{job}-{file}.part{end}" for job in range(4) for file in range(2) for end in ("", "x", "w")]
        for fifo in fifos:
            os.mkfifo(fifo)
        with let_go(*fifos):
            job, _ = await r.run(SAVE)
        assert job.state is JobState.SUCCEEDED
        assert (r.dirs(1).output / "x_00001_.bin").read_bytes() == b"made"
        assert not list(folder.glob(f"{job.key}-*")), "the job's own leave with it"
