"""A job's whole way through a worker: registered by itself, directories switched, events relayed, files at home.

What is tried has users of its own each, so that one worker serves for all of it: starting one is what takes the time.
"""

import json
from pathlib import Path

import aiohttp
import pytest
from PIL import Image

from backend_pool.job_state import JobState
from tests.backend_pool.graphs import loaded, previewed, sampled, saved
from tests.backend_pool.rig import Rig
from tests.backend_pool.test_way import picture
from tests.worker_pack.cluster import Begin, Hub, hub


async def arm(hub: Hub, **fault: object) -> None:
    """Order a fault of the worker, which needs its secret."""
    member = await hub.member()
    async with (
        aiohttp.ClientSession(headers=hub.workers.headers(member.key), trust_env=False) as http,
        http.post(f"{member.row.url}/engine/faults", json=fault) as response,
    ):
        assert response.status == 200, await response.text()


async def leftovers(engine_dir: Path, rig: Rig) -> list[str]:
    """Files that a worker keeps of jobs, once nothing is tidied up any more."""
    scratch = engine_dir / "worker-pack" / "scratch"
    await rig.eventually(lambda: not any(scratch.glob("*/*")))
    own = [path for kind in ("input", "output", "temp") for path in (engine_dir / kind).rglob("*")]
    return [str(path) for path in own]


async def in_turns(h: Hub, a: int, b: int) -> None:
    """A, B, A, B with the same prompt: nobody is served another's file, each counts on, the model is loaded once."""
    for round_ in (1, 2):
        for user in (a, b):
            prompt = sampled(2, seed=round_, prefix="sub/pic")
            job, document = await h.rig.run(prompt, user, extra_data={"extra_pnginfo": {"workflow": {"u": user}}})
            assert job.state is JobState.SUCCEEDED, document.messages
            shown = {"filename": f"pic_0000{round_}_.png", "subfolder": "sub", "type": "output"}
            assert document.outputs == {"9": {"images": [shown]}}
            assert h.rig.heard.first(job.prompt_id, "executed")["output"] == {"images": [shown]}
            kinds = h.rig.heard.kinds(job.prompt_id)
            assert kinds[0] == "execution_start" and kinds[-3:] == ["executed", "execution_success", "executing"]
            with Image.open(h.rig.dirs(user).output / "sub" / shown["filename"]) as made:
                assert json.loads(made.info["workflow"]) == {"u": user}
                assert json.loads(made.info["prompt"]) == prompt, "no rewriting is left in the user's file"
    for user in (a, b):
        assert h.rig.files(user) == ["output/sub/pic_00001_.png", "output/sub/pic_00002_.png"]
    member = await h.member()
    headers = h.workers.headers(member.key)
    async with aiohttp.ClientSession(headers=headers) as http, http.get(f"{member.row.url}/engine") as response:
        about = await response.json()
    assert about["counters"]["model_loads"] == 1 and about["nodes"]["CheckpointLoaderSimple"]["runs"] == 1
    assert about["nodes"]["SaveImage"]["runs"] == 4


async def run_again(h: Hub, a: int, b: int) -> None:
    """Cached, under the name it has at home; another user gets a file of their own; `is_changed` forces nothing."""
    prompt = saved(7)
    _, document = await h.rig.run(prompt, a)
    again, repeated = await h.rig.run(prompt, a)
    assert h.rig.heard.first(again.prompt_id, "execution_cached")["nodes"] == ["1", "2"]
    assert repeated.outputs == document.outputs and h.rig.files(a) == ["output/ComfyUI_00001_.png"]
    other, _ = await h.rig.run(prompt, b)
    assert h.rig.heard.first(other.prompt_id, "execution_cached")["nodes"] == []
    assert h.rig.files(b) == ["output/ComfyUI_00001_.png"]
    forged = loaded("a.png")
    forged["1"]["is_changed"] = ["forged"]
    for colour, inverted in (("blue", (255, 255, 0)), ("red", (0, 255, 255))):
        picture(h.rig.dirs(a).input / "a.png", colour)
        _, document = await h.rig.run(forged, a)
        assert painted(h, a, document.outputs["3"]["images"][0]["filename"]) == inverted


async def own_files(h: Hub, a: int, b: int) -> None:
    """Whatever the prompt names is there under its own name, and does not come back; another's is not."""
    for place, where in enumerate(["photo.png", "sub/photo.png", "made.png [output]", "seen.png [temp]"]):
        name, _, folder = where.partition(" ")
        picture(h.rig.dirs(a).root(folder.strip("[]") or "input") / name, "blue")
        before = set(h.rig.files(a))
        job, document = await h.rig.run(loaded(where, f"copy{place}"), a)
        assert job.state is JobState.SUCCEEDED, document.messages
        assert painted(h, a, document.outputs["3"]["images"][0]["filename"]) == (255, 255, 0)
        assert set(h.rig.files(a)) - before == {f"output/copy{place}_00001_.png"}
    photo = h.rig.dirs(a).input / "photo.png"
    for path in ("photo.png", f"../../{a}/input/photo.png", str(photo)):
        job, document = await h.rig.run(loaded(path), b)
        assert job.state is JobState.FAILED and "Invalid image file" in document.messages[-1][1]["exception_message"]
    assert h.rig.files(b) == []


async def unlisted_files(h: Hub, a: int, _b: int) -> None:
    """They come home too; what is written on to a file of the user's is added to it, again and again."""
    home, line = h.rig.dirs(a), "written by SaveImage\n"
    (home.output / "diary.txt").write_text("dear diary\n")
    for path in ("output/notes/log.txt", "temp/trace.txt", "output/diary.txt", "output/notes/log.txt"):
        await arm(h, fault="stray_file", node="SaveImage", message=path)
        job, document = await h.rig.run(saved(), a)
        assert job.state is JobState.SUCCEEDED, document.messages
    assert (home.output / "notes/log.txt").read_text() == 2 * line
    assert (home.temp / "trace.txt").read_text() == line
    assert (home.output / "diary.txt").read_text() == f"dear diary\n{line}"
    assert sorted(path.name for path in home.output.rglob("*.txt")) == ["diary.txt", "log.txt"]


async def previews(h: Hub, a: int, b: int) -> None:
    """Temp files are each user's own; a second preview does not take the first one's name."""
    names = []
    for user in (a, a, b):
        job, document = await h.rig.run(previewed(), user)
        assert job.state is JobState.SUCCEEDED, document.messages
        [shown] = document.outputs["2"]["images"]
        assert (h.rig.dirs(user).temp / shown["filename"]).is_file()
        names.append(shown["filename"])
    assert len(set(names)) == 3 and len(h.rig.files(a)) == 2 and len(h.rig.files(b)) == 1


async def refusals(h: Hub, a: int, _b: int) -> None:
    """ComfyUI's own words, and the next job runs."""
    job, document = await h.rig.run(saved(width=10**9), a)
    assert job.state is JobState.FAILED and "width" in document.messages[-1][1]["exception_message"]
    job, document = await h.rig.run(saved(), a)
    assert job.state is JobState.SUCCEEDED, document.messages


TRIED = (in_turns, run_again, own_files, unlisted_files, previews, refusals)


def painted(h: Hub, user: int, filename: str) -> object:
    """The colour of a user's picture."""
    with Image.open(h.rig.dirs(user).output / filename) as made:
        return made.convert("RGB").getpixel((0, 0))


@pytest.mark.parametrize("storage", ["shared", "sent"])
async def test_jobs(tmp_path: Path, begin: Begin, storage: str) -> None:
    """Everything, on shared storage and by HTTP; nothing is left at the worker."""
    async with hub(tmp_path) as h:
        for user in range(1, 10 * len(TRIED)):
            h.rig.dirs(user)
        shared = {"shared_data": str(tmp_path / "users")} if storage == "shared" else {}
        engine = begin(h.config(tmp_path / "one.json", **shared))
        member = await h.member(holds=lambda m: m.shared == (storage == "shared"))
        assert member.row.source == "worker" and member.worker is not None
        for place, attempt in enumerate(TRIED):
            await attempt(h, 10 * place + 1, 10 * place + 2)
        assert await leftovers(engine.base_dir, h.rig) == []
