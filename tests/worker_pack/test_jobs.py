"""A job's whole way through a worker: registered by itself, directories switched, events relayed, files at home."""

import json
from pathlib import Path

import aiohttp
import pytest
from PIL import Image

from backend_pool.job_state import JobState
from backend_pool.worker_pack.wire import SECRET_HEADER
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
    await rig.eventually(lambda: not any(scratch.iterdir()))
    own = [path for kind in ("input", "output", "temp") for path in (engine_dir / kind).rglob("*")]
    return [str(path) for path in own]


@pytest.mark.parametrize("storage", ["shared", "sent"])
async def test_jobs_of_two_users_in_turns(tmp_path: Path, begin: Begin, storage: str) -> None:
    """A, B, A, B with the same prompt: nobody is served another's file, each counts on, the model is loaded once."""
    async with hub(tmp_path) as h:
        shared = {"shared_data": str(tmp_path / "users")} if storage == "shared" else {}
        engine = begin(h.config(tmp_path / "one.json", **shared))
        for user in (1, 2):
            h.rig.dirs(user)
        member = await h.member(holds=lambda m: m.shared == (storage == "shared"))
        assert member.row.source == "worker" and member.worker is not None
        for round_ in (1, 2):
            for user in (1, 2):
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
        for user in (1, 2):
            assert h.rig.files(user) == ["output/sub/pic_00001_.png", "output/sub/pic_00002_.png"]
        headers = h.workers.headers(member.key)
        async with aiohttp.ClientSession(headers=headers) as http, http.get(f"{engine.url}/engine") as response:
            about = await response.json()
        assert about["counters"]["model_loads"] == 1
        assert about["nodes"]["CheckpointLoaderSimple"]["runs"] == 1
        assert about["nodes"]["SaveImage"]["runs"] == 4
        assert await leftovers(engine.base_dir, h.rig) == []


async def test_a_rerun_is_answered_from_the_user_s_own_results(tmp_path: Path, begin: Begin) -> None:
    """Cached, under the name it has at home; the next one counts on; another user gets a file of their own."""
    async with hub(tmp_path) as h:
        begin(h.config(tmp_path / "one.json"))
        await h.member()
        prompt = saved(7)
        first, document = await h.rig.run(prompt)
        again, repeated = await h.rig.run(prompt)
        assert h.rig.heard.first(again.prompt_id, "execution_cached")["nodes"] == ["1", "2"]
        assert repeated.outputs == document.outputs and h.rig.files() == ["output/ComfyUI_00001_.png"]
        other, _ = await h.rig.run(prompt, 2)
        assert h.rig.heard.first(other.prompt_id, "execution_cached")["nodes"] == []
        assert h.rig.files(2) == ["output/ComfyUI_00001_.png"]
        forged = saved(7) | {"9": {"class_type": "LoadImage", "inputs": {"image": "a.png"}, "is_changed": ["forged"]}}
        picture(h.rig.dirs(1).input / "a.png", "blue")
        forged["2"]["inputs"]["images"] = ["9", 0]
        await h.rig.run(forged)
        picture(h.rig.dirs(1).input / "a.png", "red")
        job, document = await h.rig.run(forged)
        name = document.outputs["2"]["images"][0]["filename"]
        with Image.open(h.rig.dirs(1).output / name) as made:
            assert made.convert("RGB").getpixel((0, 0)) == (255, 0, 0), "an old result is not forced by `is_changed`"
        assert first.prompt_id != job.prompt_id


@pytest.mark.parametrize("where", ["photo.png", "sub/photo.png", "made.png [output]", "seen.png [temp]"])
async def test_files_of_one_s_own(tmp_path: Path, begin: Begin, where: str) -> None:
    """Whatever the prompt names is there under its own name; what is another's is not."""
    async with hub(tmp_path) as h:
        begin(h.config(tmp_path / "one.json"))
        await h.member()
        name, _, folder = where.partition(" ")
        picture(h.rig.dirs(1).root(folder.strip("[]") or "input") / name, "blue")
        before = set(h.rig.files())
        job, document = await h.rig.run(loaded(where))
        assert job.state is JobState.SUCCEEDED, document.messages
        with Image.open(h.rig.dirs(1).output / document.outputs["3"]["images"][0]["filename"]) as made:
            assert made.convert("RGB").getpixel((0, 0)) == (255, 255, 0)
        assert set(h.rig.files()) - before == {"output/copy_00001_.png"}, "what was sent does not come back"
        job, document = await h.rig.run(loaded(where), 2)
        assert job.state is JobState.FAILED and "Invalid image file" in document.messages[-1][1]["exception_message"]


@pytest.mark.parametrize("storage", ["shared", "sent"])
async def test_nobody_reaches_another_s_files(tmp_path: Path, begin: Begin, storage: str) -> None:
    """Paths that lead out of the user's directories are refused on shared storage too."""
    async with hub(tmp_path) as h:
        shared = {"shared_data": str(tmp_path / "users")} if storage == "shared" else {}
        begin(h.config(tmp_path / "one.json", **shared))
        picture(h.rig.dirs(1).input / "secret.png", "blue")
        h.rig.dirs(2)
        await h.member(holds=lambda m: m.shared == (storage == "shared"))
        for path in ("../../1/input/secret.png", str(h.rig.dirs(1).input / "secret.png")):
            job, document = await h.rig.run(loaded(path), 2)
            assert job.state is JobState.FAILED, document.outputs
        assert h.rig.files(2) == []


@pytest.mark.parametrize("storage", ["shared", "sent"])
async def test_files_that_no_output_names(tmp_path: Path, begin: Begin, storage: str) -> None:
    """They come home too, a subfolder's and a preview's; what is written on to a file of the user's is added to it."""
    async with hub(tmp_path) as h:
        shared = {"shared_data": str(tmp_path / "users")} if storage == "shared" else {}
        begin(h.config(tmp_path / "one.json", **shared))
        home = h.rig.dirs(1)
        (home.output / "diary.txt").write_text("dear diary\n")
        await h.member(holds=lambda m: m.shared == (storage == "shared"))
        for path in ("output/notes/log.txt", "temp/trace.txt", "output/diary.txt"):
            await arm(h, fault="stray_file", node="SaveImage", message=path)
            job, document = await h.rig.run(saved())
            assert job.state is JobState.SUCCEEDED, document.messages
        line = "written by SaveImage\n"
        assert (home.output / "notes/log.txt").read_text() == line
        assert (home.temp / "trace.txt").read_text() == line
        assert (home.output / "diary.txt").read_text() == f"dear diary\n{line}"
        again = "output/notes/log.txt"
        await arm(h, fault="stray_file", node="SaveImage", message=again)
        await h.rig.run(saved())
        assert (home.output / "notes/log.txt").read_text() == 2 * line
        assert [path.name for path in home.output.rglob("*") if path.is_file()].count("log (1).txt") == 0


async def test_previews_stay_apart(tmp_path: Path, begin: Begin) -> None:
    """Temp files are each user's own; a second preview does not take the first one's name."""
    async with hub(tmp_path) as h:
        begin(h.config(tmp_path / "one.json"))
        await h.member()
        names = []
        for user in (1, 1, 2):
            job, document = await h.rig.run(previewed(), user)
            assert job.state is JobState.SUCCEEDED, document.messages
            [shown] = document.outputs["2"]["images"]
            assert (h.rig.dirs(user).temp / shown["filename"]).is_file()
            names.append(shown["filename"])
        assert len(set(names)) == 3 and len(h.rig.files(1)) == 2 and len(h.rig.files(2)) == 1


async def test_a_refused_prompt_leaves_the_worker_free(tmp_path: Path, begin: Begin) -> None:
    """ComfyUI's own words, and the next job runs in its own directories."""
    async with hub(tmp_path) as h:
        engine = begin(h.config(tmp_path / "one.json"))
        await h.member()
        job, document = await h.rig.run(saved(width=10**9))
        assert job.state is JobState.FAILED and "width" in document.messages[-1][1]["exception_message"]
        job, document = await h.rig.run(saved())
        assert job.state is JobState.SUCCEEDED, document.messages
        assert await leftovers(engine.base_dir, h.rig) == []
        assert SECRET_HEADER in h.workers.headers(job.backend_id or 0)
