"""Files between this proxy and a backend: several at once, taken up again, sent once, never whole in memory."""

import json
import logging
import os
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import IO, Any

import pytest

from backend_pool.comfy.client import ComfyClient, FileRef, Timeouts
from backend_pool.files.sent_files import SentFiles
from backend_pool.files.user_folder import user_folder
from backend_pool.job_state import JobState
from proxy.base.settings import Settings
from tests.backend_pool import large_files
from tests.backend_pool.conftest import Start
from tests.backend_pool.file_backend import FileBackend
from tests.backend_pool.graphs import sampled
from tests.backend_pool.rig import WAIT_S, arm, rig
from tests.backend_pool.strange_backend import serving
from tests.engine.graphs import node
from tests.forked import Forked

FOLDER = user_folder(f"{1:020x}")
LARGE = bytes(range(256)) * 16_384
SAVE = {"2": node("SaveImage", filename_prefix="x")}
MB = 1024 * 1024


@pytest.fixture
async def backend(tmp_path: Path) -> AsyncIterator[FileBackend]:
    """One whose job names three files of the user's folder."""
    root = tmp_path / "backend"
    (root / "output" / FOLDER).mkdir(parents=True)
    names = [f"clip_{number:05}_.bin" for number in (1, 2, 3)]
    for name in names:
        (root / "output" / FOLDER / name).write_bytes(name.encode() * 20_000)
    images = [{"filename": name, "subfolder": FOLDER, "type": "output"} for name in names]
    async with serving(FileBackend(root=root, ui=json.dumps({"2": {"images": images}}))) as running:
        yield running


def name_one_large(backend: FileBackend) -> None:
    """Have the job's only output be one file of 4 MiB: what a break takes along of it stays in buffers."""
    backend.ui = json.dumps({"2": {"a": {"filename": "clip_00001_.bin", "subfolder": FOLDER, "type": "output"}}})
    backend.path("output", FOLDER, "clip_00001_.bin").write_bytes(LARGE)


async def test_files_of_a_node_come_at_the_same_time(tmp_path: Path, backend: FileBackend) -> None:
    """The backend answers none of them before all three are asked for; their order stays."""
    backend.together = 3
    async with rig(tmp_path, backend.url) as r:
        job, document = await r.run(SAVE)
        assert job.state is JobState.SUCCEEDED
        shown = [image["filename"] for image in document.outputs["2"]["images"]]
        assert shown == ["clip_00001_.bin", "clip_00002_.bin", "clip_00003_.bin"]
        for name in shown:
            assert (r.dirs(1).output / name).read_bytes() == name.encode() * 20_000


async def test_a_broken_transfer_goes_on_where_it_broke(tmp_path: Path, backend: FileBackend) -> None:
    """Twice, asking for the rest alone, while the backend still has the same version."""
    name_one_large(backend)
    backend.break_after = [MB]
    async with rig(tmp_path, backend.url) as r:
        job, _ = await r.run(SAVE)
        assert job.state is JobState.SUCCEEDED
        assert backend.ranges[0] is None and len(backend.ranges) == 2
        start = int(str(backend.ranges[1]).removeprefix("bytes=").rstrip("-"))
        assert 0 < start <= MB
        assert (r.dirs(1).output / "clip_00001_.bin").read_bytes() == LARGE


async def test_a_file_that_changed_under_a_transfer_is_not_mixed(tmp_path: Path, backend: FileBackend) -> None:
    """The rest of another version is refused, the whole is fetched again."""
    name_one_large(backend)
    backend.break_after = [MB]
    path = backend.path("output", FOLDER, "clip_00001_.bin")
    served = backend._broken

    async def broken(request: Any, found: Path, length: int) -> Any:
        answer = await served(request, found, length)
        path.write_bytes(b"other".ljust(300_000, b"!"))
        return answer

    backend._broken = broken  # type: ignore
    async with rig(tmp_path, backend.url) as r:
        job, _ = await r.run(SAVE)
        assert job.state is JobState.SUCCEEDED
        assert (r.dirs(1).output / "clip_00001_.bin").read_bytes() == b"other".ljust(300_000, b"!")
        assert not list(tmp_path.glob("users/**/*.part"))


async def test_an_input_is_sent_once_and_asked_about_once(tmp_path: Path, backend: FileBackend) -> None:
    """Until the connection broke; another user's equal file is a file of its own."""
    backend.ui = "{}"
    async with rig(tmp_path, backend.url) as r:
        for user_id in (1, 2):
            (r.dirs(user_id).input / "a.bin").write_bytes(b"same")
        prompt = SAVE | {"1": node("LoadAny", file="a.bin")}
        for _ in range(3):
            assert (await r.run(prompt))[0].state is JobState.SUCCEEDED
        assert len(backend.uploads) == 1 and backend.heads == 0
        assert (await r.run(prompt, 2))[0].state is JobState.SUCCEEDED
        folders = {upload.split("/")[1] for upload in backend.uploads}
        assert folders == {user_folder(f"{user_id:020x}") for user_id in (1, 2)}
        r.pool.members[1].client.breaks += 1
        await r.run(prompt)
        assert len(backend.uploads) == 2 and backend.heads == 1


async def test_a_trusted_input_that_is_gone_is_sent_again(tmp_path: Path, backend: FileBackend) -> None:
    """An operator tidied: the refusal makes us look, the user never hears of it."""
    backend.ui, backend.needs_inputs = "{}", True
    async with rig(tmp_path, backend.url) as r:
        (r.dirs(1).input / "a.bin").write_bytes(b"same")
        prompt = SAVE | {"1": node("LoadAny", file="a.bin")}
        await r.run(prompt)
        (stored,) = (backend.root / "input" / FOLDER).iterdir()
        stored.unlink()
        job, _ = await r.run(prompt)
        assert job.state is JobState.SUCCEEDED and job.attempt == 1 and stored.exists()
        assert len(backend.uploads) == 2 and len(backend.prompts) == 2


async def test_a_file_that_changes_while_it_is_sent_fails_the_job(tmp_path: Path, backend: FileBackend) -> None:
    """And what was sent does not stay under a name that promises other content."""
    backend.ui = "{}"
    async with rig(tmp_path, backend.url) as r:
        mine = r.dirs(1).input / "a.bin"
        mine.write_bytes(b"a" * 1000)
        client = r.pool.members[1].client
        real = client.upload

        async def upload(content: IO[bytes], filename: str, subfolder: str) -> None:
            mine.write_bytes(b"b" * 1000)
            os.utime(mine, ns=(1, 1))
            await real(content, filename, subfolder)

        client.upload = upload  # type: ignore[method-assign]
        job, document = await r.run(SAVE | {"1": node("LoadAny", file="a.bin")})
        assert job.state is JobState.FAILED and "a.bin changed while" in document.messages[-1][1]["exception_message"]
        (stored,) = (backend.root / "input" / FOLDER).iterdir()
        assert stored.read_bytes() == b"" and backend.prompts == []
        client.upload = real  # type: ignore[method-assign]
        assert (await r.run(SAVE | {"1": node("LoadAny", file="a.bin")}))[0].state is JobState.SUCCEEDED
        assert b"b" * 1000 in [path.read_bytes() for path in (backend.root / "input" / FOLDER).iterdir()]


def holds(folder: Path, sizes: list[int]) -> bool:
    """Whether the files of a folder have these sizes."""
    return sorted(path.stat().st_size for path in folder.iterdir()) == sizes


async def test_inputs_at_a_backend_are_bounded(tmp_path: Path, backend: FileBackend) -> None:
    """The longest unused is emptied there, and sent again when it is wanted."""
    backend.ui = "{}"
    async with rig(tmp_path, backend.url, backend_inputs_mb=1) as r:
        for name in ("a.bin", "b.bin"):
            (r.dirs(1).input / name).write_bytes(name.encode() * 150_000)
        folder = backend.root / "input" / FOLDER
        for number, name in enumerate(("a.bin", "b.bin", "a.bin"), 1):
            assert (await r.run(SAVE | {"1": node("LoadAny", file=name)}))[0].state is JobState.SUCCEEDED
            wanted = [0, 750_000] if number > 1 else [750_000]
            await r.eventually(partial(holds, folder, wanted))


async def test_what_was_sent_is_forgotten_in_order(backend: FileBackend) -> None:
    """Totals stay right when a file is noted twice."""
    client = ComfyClient(backend.url, Timeouts.of(Settings()))
    try:
        sent = SentFiles(client)
        a, b = (FileRef(name, FOLDER, "input") for name in "ab")
        assert not sent.holds(a)
        for size in (5, 7):
            sent.note(a, size)
        sent.note(b, 1)
        assert sent.holds(a) and sent.total_bytes == 8 and len(sent) == 2
        sent.doubt()
        assert not sent.holds(a) and sent.total_bytes == 8
        await sent.shrink(7)
        assert sent.holds(a) is False and len(sent) == 1 and backend.uploads == [f"input/{FOLDER}/b"]
    finally:
        await client.close()


async def test_a_slow_file_of_an_ended_job_is_no_beginning(
    tmp_path: Path, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    """The job collects; noting once more that it began would be an illegal change and kill its runner."""
    engine = start()
    async with rig(tmp_path, engine.url) as r:
        await arm(engine.url, fault="drop_ws", node="SaveImage")  # so that `executed` is not heard
        await arm(engine.url, fault="slow_view", bytes_per_s=8192)
        with caplog.at_level(logging.ERROR):
            job, _ = await r.run(sampled())
        assert job.state is JobState.SUCCEEDED and "collecting" in [entry[1] for entry in job.trail]
        assert [record.getMessage() for record in caplog.records] == []


def test_a_large_file_is_never_whole_in_memory(tmp_path: Path) -> None:
    """A job that reads and makes files of 96 MB each, in a process whose memory is watched."""
    log, size = tmp_path / "errors.log", str(96 * MB)
    server = Forked(large_files.backend, str(tmp_path / "backend"), size, log=log)
    try:
        url = server.stdout.readline().strip()
        watched = Forked(large_files.job, str(tmp_path), url, size, log=log)
        told = watched.stdout.read()
        assert watched.wait(WAIT_S) == 0, log.read_text()
    finally:
        server.kill()
        server.wait(WAIT_S)
    outcome = json.loads(told)
    assert outcome["state"] == "succeeded" and outcome["sizes"] == [96 * MB]
    assert outcome["grew"] < 48 * MB
