"""The same way over a real ComfyUI as the backend, where one is configured (see tests/real_comfyui.py)."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from backend_pool.backends.housekeeping import free
from backend_pool.job_state import JobState
from tests.backend_pool.graphs import loaded, previewed, saved
from tests.backend_pool.rig import engine_get, rig
from tests.backend_pool.test_way import picture
from tests.engine.graphs import node
from tests.real_comfyui import start_real_comfyui

pytestmark = pytest.mark.comfyui
SLOW = {"upstream_timeout_s": 30.0, "probe_timeout_s": 10.0, "backend_down_after_s": 30.0}


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a real ComfyUI."""
    server = start_real_comfyui(tmp_path_factory.mktemp("comfyui"))
    yield server.url
    server.stop()


async def test_a_saved_picture(tmp_path: Path, real: str) -> None:
    """Events, names, metadata and the user's own counter, and a cached rerun under the first name."""
    async with rig(tmp_path, real, **SLOW) as r:
        prompt = saved(prefix="sub/pic")
        job, document = await r.run(prompt, extra_data={"extra_pnginfo": {"workflow": {"nodes": []}}})
        assert job.state is JobState.SUCCEEDED, document.messages
        assert r.heard.kinds(job.prompt_id)[0] == "execution_start"
        assert r.heard.kinds(job.prompt_id)[-3:] == ["executed", "execution_success", "executing"]
        shown = {"filename": "pic_00001_.png", "subfolder": "sub", "type": "output"}
        assert document.outputs == {"2": {"images": [shown]}}
        with Image.open(r.dirs(1).output / "sub/pic_00001_.png") as made:
            assert json.loads(made.info["prompt"]) == prompt and json.loads(made.info["workflow"]) == {"nodes": []}
        again, repeated = await r.run(prompt)
        assert r.heard.first(again.prompt_id, "execution_cached")["nodes"] == ["1", "2"]
        assert repeated.outputs == document.outputs
        assert r.files() == ["output/sub/pic_00001_.png"]
        told = json.dumps([data for _, data in r.heard.of(job.prompt_id) if not isinstance(data, bytes)])
        assert "cluster" not in told and str(job.upstream_id) not in told


async def test_a_preview_is_each_user_s_own(tmp_path: Path, real: str) -> None:
    """The salted input is neither refused nor passed to the node, and keeps users apart."""
    async with rig(tmp_path, real, **SLOW) as r:
        prompt = previewed()
        for user_id in (1, 2):
            job, document = await r.run(prompt, user_id, extra_data={"extra_pnginfo": {"workflow": {"u": user_id}}})
            assert job.state is JobState.SUCCEEDED, document.messages
            with Image.open(r.dirs(user_id).temp / document.outputs["2"]["images"][0]["filename"]) as made:
                assert json.loads(made.info["workflow"]) == {"u": user_id}
                assert json.loads(made.info["prompt"]) == prompt
        assert r.heard.first(job.prompt_id, "execution_cached")["nodes"] == ["1"]


@pytest.mark.parametrize("where", ["photo.png", "sub/photo.png", "made.png [output]"])
async def test_a_picture_of_one_s_own(tmp_path: Path, real: str, where: str) -> None:
    """Uploaded under its content's name, loaded, inverted."""
    async with rig(tmp_path, real, **SLOW) as r:
        name, _, folder = where.partition(" ")
        picture(r.dirs(1).root(folder.strip("[]") or "input") / name, "blue")
        job, document = await r.run(loaded(where))
        assert job.state is JobState.SUCCEEDED, document.messages
        with Image.open(r.dirs(1).output / document.outputs["3"]["images"][0]["filename"]) as made:
            assert made.convert("RGB").getpixel((0, 0)) == (255, 255, 0)


async def test_a_failing_node(tmp_path: Path, real: str) -> None:
    """ComfyUI's own error, in the user's terms; what the backend alone can judge is told as the job's error."""
    async with rig(tmp_path, real, **SLOW) as r:
        (r.dirs(1).input / "broken.png").write_bytes(b"no picture")
        job, document = await r.run(loaded("broken.png"))
        error = document.messages[-1][1]
        assert job.state is JobState.FAILED and error["node_type"] == "LoadImage"
        assert "cluster" not in json.dumps(error) and error["current_inputs"] == {"image": ["broken.png"]}
        refused, document = await r.run(saved(width=10**9))
        assert refused.state is JobState.FAILED
        assert "width" in document.messages[-1][1]["exception_message"]
        assert (await engine_get(real, "/queue")) == {"queue_running": [], "queue_pending": []}


async def test_a_running_job_is_cancelled(tmp_path: Path, real: str) -> None:
    """Its next job runs."""
    async with rig(tmp_path, real, **SLOW) as r:
        prompt = saved(width=2048, height=2048, batch_size=2)
        prompt["2"]["inputs"]["images"] = ["8", 0]
        for key in range(3, 9):  # each blur takes its time; an interrupt is heeded between nodes
            source = "1" if key == 3 else str(key - 1)
            prompt[str(key)] = node("ImageBlur", image=[source, 0], blur_radius=31, sigma=10.0)
        prompt_id = await r.submit(prompt)
        await r.heard.until(prompt_id, lambda kind, data: kind == "executing" and data["node"] == "3")
        await r.cancel(prompt_id)
        job, _ = await r.final(prompt_id)
        assert job.state is JobState.CANCELLED
        assert r.heard.kinds(prompt_id)[-2:] == ["execution_interrupted", "executing"]
        assert (await r.run(saved()))[0].state is JobState.SUCCEEDED
        assert r.files() == ["output/ComfyUI_00001_.png"]


async def test_freeing_forgets_results(tmp_path: Path, real: str) -> None:
    """What housekeeping asks of an idle one. A prompt that comes at that very moment may still find the old results."""
    async with rig(tmp_path, real, **SLOW) as r:
        (member,) = r.pool.members.values()
        prompt = saved(prefix="kept")
        await r.run(prompt)
        await free(member)
        for _ in range(3):
            job, _ = await r.run(prompt)
            cached = r.heard.first(job.prompt_id, "execution_cached")["nodes"]
            if not cached:
                break
            await free(member)
        assert cached == []
