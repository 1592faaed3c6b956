"""Backends that lose files of ended jobs: started anew with empty directories, where names mean other files."""

import json
import shutil
from pathlib import Path
from typing import Any

from backend_pool.files.moved_note import moved_in
from backend_pool.files.user_folder import user_folder
from backend_pool.job_state import JobState
from tests.backend_pool.conftest import Start
from tests.backend_pool.file_backend import FileBackend
from tests.backend_pool.graphs import previewed, saved
from tests.backend_pool.rig import arm, rig
from tests.backend_pool.strange_backend import serving
from tests.backend_pool.test_taken_names import FIRST, GREEN, RED, SECOND, colour, name_of
from tests.engine.graphs import node
from tests.engines import Engine

SAVE = {"2": node("SaveImage", filename_prefix="x")}
FOLDER = user_folder(f"{1:020x}")


def emptied(engine: Engine, start: Start) -> Engine:
    """The same address, and nothing there."""
    engine.kill()
    for kind in ("output", "temp"):
        shutil.rmtree(engine.base_dir / kind)
    return start("--port", engine.url.rsplit(":", 1)[1], name=engine.base_dir.name)


async def test_a_name_of_the_server_before_is_no_file_of_the_next(tmp_path: Path, start: Start) -> None:
    """It dies while a picture is on its way whose name another had before it was emptied: that one is not shown in its
    stead, and the job runs again, for nothing, although its backend had some node of it in its cache."""
    engine = start(name="backend")
    async with rig(tmp_path, engine.url) as r:
        await r.run(saved(RED))
        (left,) = engine.base_dir.glob("output/*/*.png")
        await r.eventually(lambda: moved_in(left.read_bytes()) is not None)
        engine = emptied(engine, start)
        assert (await r.run(previewed(GREEN)))[0].state is JobState.SUCCEEDED
        await arm(engine.url, fault="drop_ws", node="SaveImage")  # so that it is fetched once the job has ended
        await arm(engine.url, fault="slow_view", bytes_per_s=1)
        prompt_id = await r.submit(saved(GREEN))
        await r.eventually(lambda: bool(list(r.dirs(1).output.glob(".incoming/*.part"))))
        emptied(engine, start)
        job, document = await r.final(prompt_id)
        assert job.state is JobState.SUCCEEDED and job.attempt == 1 and name_of(document) == SECOND
        assert [colour(r.dirs(1).output / name) for name in (FIRST, SECOND)] == [RED, GREEN]


async def test_no_note_is_put_in_another_server_s_files(tmp_path: Path) -> None:
    """It has begun anew since it ended the job: the name may be another job's."""
    path = f"output/{FOLDER}/a_00001_.png"
    (tmp_path / "backend" / path).parent.mkdir(parents=True)
    (tmp_path / "backend" / path).write_bytes(b"picture")
    ui = json.dumps({"2": {"images": [{"filename": "a_00001_.png", "subfolder": FOLDER, "type": "output"}]}})
    async with serving(FileBackend(root=tmp_path / "backend", ui=ui)) as backend, rig(tmp_path, backend.url) as r:
        running = len(r.tasks)

        def begin_anew(kind: str, data: Any) -> None:
            if kind == "executing" and data["node"] is None:
                backend.history.clear()

        r.heard.also = begin_anew
        job, _ = await r.run(SAVE)
        assert job.state is JobState.SUCCEEDED
        await r.eventually(lambda: len(r.tasks) <= running)
        assert "POST /upload/image" not in backend.asked


async def test_what_was_shown_stays_though_the_next_file_is_lost(tmp_path: Path) -> None:
    """Also what no dictionary names: the picture beside a clip, and what a 3D node tells of in a text."""
    names = ("clip_00003.mp4", "clip_00003.png", "mesh.glb")
    for name in names:
        (tmp_path / f"backend/output/{FOLDER}").mkdir(parents=True, exist_ok=True)
        (tmp_path / f"backend/output/{FOLDER}/{name}").write_bytes(name.encode())
    clip = {"filename": names[0], "subfolder": FOLDER, "type": "output", "workflow": names[1]}
    shown = {"gifs": [clip], "result": [f"{FOLDER}/mesh.glb"]}
    lost = {"images": [{"filename": "lost_00001_.png", "subfolder": FOLDER, "type": "output"}]}
    backend = FileBackend(root=tmp_path / "backend", ui=json.dumps({"2": shown, "3": lost}))
    backend.between = [{"type": "executed", "data": {"node": "2", "output": shown, "prompt_id": "ID"}}]
    async with serving(backend), rig(tmp_path, backend.url) as r:
        job, document = await r.run(SAVE)
        assert job.state is JobState.FAILED and list(document.outputs) == ["2"]
        assert r.files() == ["output/clip_00001.mp4", "output/clip_00001.png", "output/mesh.glb"]
