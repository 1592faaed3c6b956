"""A job's way through real engines when nothing goes wrong: events, files, names, order."""

import asyncio
import json
from pathlib import Path

import pytest
from PIL import Image
from sqlmodel import select

from backend_pool.comfy.frames import binary_type
from backend_pool.job_state import JobState
from backend_pool.model import Job
from tests.backend_pool.conftest import Start
from tests.backend_pool.graphs import loaded, previewed, sampled, saved
from tests.backend_pool.rig import engine_get, rig, submission
from tests.engine.graphs import node


def picture(path: Path, color: str = "red") -> None:
    """A small picture file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (16, 16), color).save(path)


async def test_events_come_in_comfyui_s_order(tmp_path: Path, urls: list[str]) -> None:
    """As on a real server (protocol §2): start, cached, executing, executed, success, the end marker."""
    async with rig(tmp_path, urls[0]) as r:
        job, document = await r.run(saved())
        assert r.heard.kinds(job.prompt_id) == [
            "execution_start",
            "execution_cached",
            "executing",
            "executing",
            "executed",
            "execution_success",
            "executing",
        ]
        ids = {data["prompt_id"] for _, data in r.heard.of(job.prompt_id) if isinstance(data, dict)}
        assert ids == {job.prompt_id}
        assert job.state is JobState.SUCCEEDED and job.outputs_count == 1
        assert job.assigned_ms and job.started_ms and job.ended_ms
        assert [message[0] for message in document.messages] == [
            "execution_start",
            "execution_cached",
            "execution_success",
        ]
        assert document.outputs == {
            "2": {"images": [{"filename": "ComfyUI_00001_.png", "subfolder": "", "type": "output"}]}
        }
        assert document.meta["2"]["node_id"] == "2" and document.files == []
        assert r.files() == ["output/ComfyUI_00001_.png"]


async def test_a_file_is_there_before_executed_is_told(tmp_path: Path, urls: list[str]) -> None:
    """And the history is readable before the end marker (client demands B7)."""
    async with rig(tmp_path, urls[0]) as r:
        at: dict[str, tuple[list[str], str]] = {}

        def look(kind: str, data: object) -> None:
            states = r.db.read_now(lambda s: list(s.exec(select(Job.state)).all()))
            ended = kind == "executing" and isinstance(data, dict) and data["node"] is None
            at["end" if ended else kind] = (r.files(), states[0])

        r.heard.also = look
        await r.run(saved())
        assert at["executed"][0] == ["output/ComfyUI_00001_.png"]
        assert at["execution_success"][1] == at["end"][1] == JobState.SUCCEEDED


async def test_the_picture_carries_the_user_s_own_prompt(tmp_path: Path, urls: list[str]) -> None:
    """Not the rewritten one, whose prefix and file names are ours; the workflow stays as it was."""
    async with rig(tmp_path, urls[0]) as r:
        picture(r.dirs(1).input / "photo.png")
        prompt = loaded("photo.png", "sub/copy")
        job, document = await r.run(prompt, extra_data={"extra_pnginfo": {"workflow": {"id": "w1", "nodes": []}}})
        assert job.workflow_id == "w1"
        assert document.outputs["3"]["images"][0] == {
            "filename": "copy_00001_.png",
            "subfolder": "sub",
            "type": "output",
        }
        with Image.open(r.dirs(1).output / "sub" / "copy_00001_.png") as made:
            assert json.loads(made.info["prompt"]) == prompt
            assert json.loads(made.info["workflow"]) == {"id": "w1", "nodes": []}
            assert made.convert("RGB").getpixel((0, 0)) == (0, 255, 255)
        assert document.prompt == prompt


async def test_a_user_counts_alone(tmp_path: Path, urls: list[str]) -> None:
    """Each user's files are numbered from what that user has, whatever the backend has."""
    async with rig(tmp_path, urls[0]) as r:
        picture(r.dirs(2).output / "ComfyUI_00041_.png")
        for user_id in (1, 2, 1):
            await r.run(saved(), user_id)
        assert r.files(1) == ["output/ComfyUI_00001_.png", "output/ComfyUI_00002_.png"]
        assert r.files(2) == ["output/ComfyUI_00041_.png", "output/ComfyUI_00042_.png"]


async def test_a_batch_is_numbered_in_order(tmp_path: Path, urls: list[str]) -> None:
    """Several files of one node arrive together under consecutive numbers."""
    async with rig(tmp_path, urls[0]) as r:
        picture(r.dirs(1).output / "ComfyUI_00007_.png")
        _, document = await r.run(saved(batch_size=3))
        names = [image["filename"] for image in document.outputs["2"]["images"]]
        assert names == ["ComfyUI_00008_.png", "ComfyUI_00009_.png", "ComfyUI_00010_.png"]
        assert len(r.files()) == 4


async def test_a_cached_rerun_keeps_its_name(tmp_path: Path, urls: list[str]) -> None:
    """As in ComfyUI, which shows the old file again and writes none."""
    async with rig(tmp_path, urls[0]) as r:
        prompt = saved()
        first, _ = await r.run(prompt)
        again, document = await r.run(prompt)
        assert r.heard.first(again.prompt_id, "execution_cached")["nodes"] == ["1", "2"]
        assert document.outputs["2"]["images"][0]["filename"] == "ComfyUI_00001_.png"
        assert r.heard.first(again.prompt_id, "executed")["output"] == document.outputs["2"]
        assert r.files() == ["output/ComfyUI_00001_.png"]
        assert first.seq != again.seq


async def test_a_cached_file_that_the_user_deleted_comes_back(tmp_path: Path, urls: list[str]) -> None:
    """The backend still has it."""
    async with rig(tmp_path, urls[0]) as r:
        prompt = saved()
        await r.run(prompt)
        (r.dirs(1).output / "ComfyUI_00001_.png").unlink()
        _, document = await r.run(prompt)
        assert r.files() == ["output/ComfyUI_00001_.png"]
        assert document.outputs["2"]["images"][0]["filename"] == "ComfyUI_00001_.png"


async def test_one_user_never_gets_another_s_cached_preview(tmp_path: Path, urls: list[str]) -> None:
    """Their workflow would be inside (protocol §5.2)."""
    async with rig(tmp_path, urls[0]) as r:
        prompt = previewed()
        for user_id in (1, 2):
            workflow = {"extra_pnginfo": {"workflow": {"owner": user_id}}}
            job, document = await r.run(prompt, user_id, extra_data=workflow)
            shown = document.outputs["2"]["images"][0]
            assert shown["type"] == "temp" and shown["subfolder"] == ""
            with Image.open(r.dirs(user_id).temp / shown["filename"]) as made:
                assert json.loads(made.info["workflow"]) == {"owner": user_id}
                assert json.loads(made.info["prompt"]) == prompt
        assert r.heard.first(job.prompt_id, "execution_cached")["nodes"] == ["1"]


async def test_two_users_run_side_by_side(tmp_path: Path, urls: list[str]) -> None:
    """The same prompt at once, on two engines, each with its own events and files."""
    async with rig(tmp_path, *urls) as r:
        prompt = sampled(steps=20)
        ids = [await r.submit(prompt, user_id) for user_id in (1, 2)]
        for prompt_id in ids:
            await r.heard.until(prompt_id, "execution_start")
        jobs = [(await r.final(prompt_id, user_id))[0] for prompt_id, user_id in zip(ids, (1, 2), strict=True)]
        assert {job.backend_id for job in jobs} == {1, 2}
        assert [job.state for job in jobs] == [JobState.SUCCEEDED] * 2
        assert r.files(1) == r.files(2) == ["output/ComfyUI_00001_.png"]
        assert max(job.started_ms or 0 for job in jobs) <= min(job.ended_ms or 0 for job in jobs)


async def test_one_user_s_jobs_run_in_order(tmp_path: Path, urls: list[str]) -> None:
    """One at a time, also with two idle engines; `front` overtakes what waits."""
    async with rig(tmp_path, *urls) as r:
        ids = [await r.submit(sampled(steps=4)) for _ in range(3)]
        ids.append(await r.submit(sampled(steps=4), front=True))
        for prompt_id in ids:
            await r.final(prompt_id)
        starts = [owner for owner, kind, _ in r.heard.events if kind == "execution_start"]
        assert starts == [ids[0], ids[3], ids[1], ids[2]]
        order = [(owner, kind) for owner, kind, _ in r.heard.events if kind in ("execution_start", "execution_success")]
        assert [kind for _, kind in order] == ["execution_start", "execution_success"] * 4


async def test_users_take_turns(tmp_path: Path, urls: list[str]) -> None:
    """Somebody with many jobs does not hold up somebody with one."""
    async with rig(tmp_path, urls[0]) as r:
        many = [await r.submit(sampled(steps=4), 1) for _ in range(4)]
        one = await r.submit(sampled(steps=4), 2)
        for prompt_id in many:
            await r.final(prompt_id)
        starts = [owner for owner, kind, _ in r.heard.events if kind == "execution_start"]
        assert starts.index(one) == 1


@pytest.mark.parametrize("where", ["photo.png", "sub/photo.png", "made.png [output]", "deep/er/made.png [output]"])
async def test_load_image_reads_the_user_s_file(tmp_path: Path, urls: list[str], where: str) -> None:
    """By plain name, in a subfolder, or from the output directory."""
    async with rig(tmp_path, urls[0]) as r:
        name, _, folder = where.partition(" ")
        picture(r.dirs(1).root(folder.strip("[]") or "input") / name, "blue")
        job, document = await r.run(loaded(where))
        assert job.state is JobState.SUCCEEDED
        with Image.open(r.dirs(1).output / document.outputs["3"]["images"][0]["filename"]) as made:
            assert made.convert("RGB").getpixel((0, 0)) == (255, 255, 0)
            assert json.loads(made.info["prompt"])["1"]["inputs"]["image"] == where


async def test_what_was_deleted_at_the_backend_is_sent_again(tmp_path: Path, start: Start) -> None:
    """Operators may clear the folders that jobs leave there: inputs are staged anew, outputs are at home."""
    engine = start()
    async with rig(tmp_path, engine.url) as r:
        picture(r.dirs(1).input / "photo.png")
        await r.run(loaded("photo.png", "one"))
        left = [path for kind in ("input", "output") for path in engine.base_dir.glob(f"{kind}/cluster-*/**/*.png")]
        assert len(left) == 2
        for path in left:
            path.unlink()
        assert (await r.run(loaded("photo.png", "one")))[0].state is JobState.SUCCEEDED  # all of it cached there
        assert left[0].exists()
        assert (await r.run(loaded("photo.png", "two")))[0].state is JobState.SUCCEEDED
        assert r.files() == ["output/one_00001_.png", "output/two_00001_.png"]


async def test_two_users_files_of_one_name_are_not_confused(tmp_path: Path, urls: list[str]) -> None:
    """Content names them at the backend."""
    async with rig(tmp_path, urls[0]) as r:
        for user_id, color in ((1, "red"), (2, "lime")):
            picture(r.dirs(user_id).input / "photo.png", color)
        colors = []
        for user_id in (1, 2, 1):
            _, document = await r.run(loaded("photo.png", f"copy{user_id}"), user_id)
            with Image.open(r.dirs(user_id).output / document.outputs["3"]["images"][0]["filename"]) as made:
                colors.append(made.convert("RGB").getpixel((0, 0)))
        assert colors == [(0, 255, 255), (255, 0, 255), (0, 255, 255)]


async def test_previews_go_to_temp_and_reach_the_tab(tmp_path: Path, urls: list[str]) -> None:
    """PreviewImage's file in temp; a sampler's pictures as frames of types clients know."""
    async with rig(tmp_path, urls[0]) as r:
        job, _ = await r.run(sampled(steps=6))
        types = {binary_type(data) for kind, data in r.heard.of(job.prompt_id) if kind == "binary"}
        assert types == {4}
        await r.run(previewed())
        assert [name.split("/")[0] for name in r.files()] == ["output", "temp"]


async def test_nothing_of_ours_shows(tmp_path: Path, urls: list[str]) -> None:
    """Neither the tag nor the names of staged files nor upstream ids, in any event or in the history."""
    async with rig(tmp_path, urls[0]) as r:
        picture(r.dirs(1).input / "photo.png")
        job, document = await r.run(loaded("photo.png", "a/b"))
        told = json.dumps([data for kind, data in r.heard.of(job.prompt_id) if kind != "binary"])
        kept = json.dumps([document.outputs, document.meta, document.messages])
        for secret in ("cluster", "tag00000001", str(job.upstream_id), str(job.upstream_client)):
            assert secret not in told and secret not in kept


async def test_an_ended_job_leaves_nothing_in_the_backend_s_history(tmp_path: Path, urls: list[str]) -> None:
    """Others may look there."""
    async with rig(tmp_path, urls[0]) as r:
        job, _ = await r.run(saved())
        async with asyncio.timeout(30):
            while await engine_get(urls[0], f"/history/{job.upstream_id}"):
                await asyncio.sleep(0.02)


async def test_partial_targets_run_alone(tmp_path: Path, urls: list[str]) -> None:
    """Only the outputs that were asked for are made."""
    async with rig(tmp_path, urls[0]) as r:
        prompt = saved()
        prompt["3"] = node("SaveImage", images=["1", 0], filename_prefix="other")
        _, document = await r.run(prompt, targets=["3"])
        assert list(document.outputs) == ["3"]
        assert r.files() == ["output/other_00001_.png"]


async def test_a_prefix_out_of_the_folder_fails_with_comfyui_s_words(tmp_path: Path, urls: list[str]) -> None:
    """And the queue goes on."""
    async with rig(tmp_path, urls[0]) as r:
        job, document = await r.run(saved(prefix="../../x"))
        assert job.state is JobState.FAILED
        error = document.messages[-1][1]
        assert error["node_id"] == "2" and "outside the output folder" in error["exception_message"]
        assert (await r.run(saved()))[0].state is JobState.SUCCEEDED


async def test_tokens_reach_the_backend_and_no_table(tmp_path: Path, urls: list[str]) -> None:
    """API tokens of paid nodes are kept in memory only."""
    async with rig(tmp_path, urls[0]) as r:
        order = submission(saved())
        with r.dispatcher.hold(1, order.prompt_id):
            queued = await r.store.submit(order)
            r.dispatcher.keep_secrets(queued.key, {"api_key_comfy_org": "s3cr3t"})
        await r.heard.ended(order.prompt_id)
        job, document = await r.entry(order.prompt_id)
        assert "s3cr3t" not in json.dumps([document.extra_data, document.messages, document.outputs, job.trail])
        raw = b"".join(path.read_bytes() for path in tmp_path.glob("cluster.db*"))
        assert b"s3cr3t" not in raw
