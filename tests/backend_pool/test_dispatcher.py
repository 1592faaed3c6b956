"""The dispatcher and the pool around a job: who gets it, odd backends, vanished users, runners that die."""

import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from backend_pool.backends.health import Health
from backend_pool.dispatch.matching import BUSY
from backend_pool.files.owner import Owner
from backend_pool.files.user_folder import user_folder
from backend_pool.job_state import JobState
from backend_pool.model import BackendMode
from backend_pool.prompts.node_info import input_specs, options
from proxy.base.errors import DiskFull, NotFound
from tests.backend_pool.conftest import Start
from tests.backend_pool.graphs import loaded, sampled, saved
from tests.backend_pool.rig import engine_get, rig, submission
from tests.backend_pool.strange_backend import INFO, strange_backend
from tests.backend_pool.test_way import picture
from tests.engine.graphs import node

A = {"filename": "a.png", "subfolder": "", "type": "output"}


async def test_a_job_goes_where_its_model_is(tmp_path: Path, start: Start) -> None:
    """And waits while that backend is away, passed by other users; once it is removed the job says what is missing."""
    other, right = start("--checkpoints", "other.safetensors"), start("--checkpoints", "mine.safetensors")
    async with rig(tmp_path, other.url, right.url) as r:
        prompt = sampled()
        prompt["4"]["inputs"]["ckpt_name"] = "mine.safetensors"
        for _ in range(3):
            assert (await r.run(prompt))[0].backend_id == 2
        right.kill()
        await r.eventually(lambda: r.health() == [Health.UP, Health.DOWN])
        waits = await r.submit(prompt)
        assert (await r.run(saved(), 2))[0].backend_id == 1
        seq = (await r.entry(waits))[0].key
        reason = f"waiting for a backend with checkpoint mine.safetensors; {r.pool.members[2].row.name} (down) has it"
        await r.eventually(lambda: r.dispatcher.reason(seq) == reason)
        assert (await r.entry(waits))[0].state is JobState.QUEUED
        await r.registry.remove(2)
        r.pool.wake()
        job, document = await r.final(waits)
        assert job.state is JobState.FAILED
        assert "mine.safetensors" in document.messages[-1][1]["exception_message"]


def not_listed(value: str) -> dict[str, Any]:
    """ComfyUI's 400 for a checkpoint it does not have."""
    reason = {
        "type": "value_not_in_list",
        "message": "Value not in list",
        "details": f"ckpt_name: '{value}' not in []",
        "extra_info": {"input_name": "ckpt_name", "received_value": value},
    }
    whole = {"type": "prompt_outputs_failed_validation", "message": "Prompt outputs failed validation", "details": ""}
    return {"error": whole, "node_errors": {"4": {"errors": [reason], "class_type": "CheckpointLoaderSimple"}}}


async def test_a_backend_that_lost_its_model_passes_the_job_on(tmp_path: Path, start: Start) -> None:
    """Its list was a minute old: the user is not to blame, and the list is read again at once."""
    right = start("--checkpoints", "mine.safetensors")
    prompt = sampled()
    prompt["4"]["inputs"]["ckpt_name"] = "mine.safetensors"
    listed = await engine_get(right.url, "/object_info")
    refusal = not_listed("mine.safetensors")
    async with strange_backend(info=listed, refusal=refusal) as strange, rig(tmp_path, strange.url, right.url) as r:
        emptied = listed["CheckpointLoaderSimple"] | {"input": {"required": {"ckpt_name": [[], {}]}}}
        strange.info = listed | {"CheckpointLoaderSimple": emptied}
        job, _ = await r.run(prompt)
        assert (job.state, job.backend_id, job.attempt) == (JobState.SUCCEEDED, 2, 2)
        assert len(strange.prompts) == 1
        await r.eventually(lambda: r.pool.members[1].idle)
        assert options(dict(input_specs(r.pool.members[1].info["CheckpointLoaderSimple"]))["ckpt_name"]) == []
        assert (await r.run(prompt))[0].backend_id == 2 and len(strange.prompts) == 1


async def test_a_choice_that_no_other_backend_has_is_the_user_s_error(tmp_path: Path) -> None:
    """Asking again would end the same."""
    info = INFO | {"CheckpointLoaderSimple": {"input": {"required": {"ckpt_name": [["mine.safetensors"], {}]}}}}
    refusal = not_listed("mine.safetensors")
    async with strange_backend(info=info, refusal=refusal) as strange, rig(tmp_path, strange.url) as r:
        loader = node("CheckpointLoaderSimple", ckpt_name="mine.safetensors")
        job, document = await r.run(saved() | {"4": loader})
        assert (job.state, len(strange.prompts)) == (JobState.FAILED, 1)
        assert "mine.safetensors" in document.messages[-1][1]["exception_message"]


async def test_why_a_job_waits(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Each user's first job says what has to happen; one that needs more than patience is logged once. The backend
    never answers: one that did could have the job before it is disabled."""
    async with rig(tmp_path) as r:
        waits, second = await r.submit(saved()), await r.submit(saved())
        seq, behind = (await r.entry(waits))[0].key, (await r.entry(second))[0].key
        await r.eventually(lambda: r.dispatcher.reason(seq) == "there is no backend")
        assert r.dispatcher.reason(behind) is None
        row = await r.registry.add("http://127.0.0.1:1")
        await r.registry.set_mode(row.id or 0, BackendMode.DISABLED)
        await r.eventually(lambda: r.dispatcher.reason(seq) == "all backends are disabled or draining")
        await r.registry.set_mode(row.id or 0, BackendMode.ACTIVE)
        await r.eventually(lambda: r.dispatcher.reason(seq) == "all backends are down")
        told = [record for record in caplog.records if "job waits" in record.getMessage()]
        assert len(told) == 1
        await r.cancel(waits)
        assert r.dispatcher.reason(seq) is None
        await r.eventually(lambda: r.dispatcher.reason(behind) == "all backends are down")


async def test_a_job_waits_for_its_turn(tmp_path: Path, start: Start) -> None:
    """And nothing is said of it once it runs."""
    async with rig(tmp_path, start("--step-ms", "50").url) as r:
        long = await r.submit(sampled(steps=10_000))
        await r.heard.until(long, "execution_start")
        waits = await r.submit(saved(), 2)
        seq = (await r.entry(waits, 2))[0].key
        await r.eventually(lambda: r.dispatcher.reason(seq) == BUSY)
        await r.cancel(long)
        assert (await r.final(waits, 2))[0].state is JobState.SUCCEEDED
        assert r.dispatcher.reason(seq) is None


async def test_a_held_job_starts_after_its_answer(tmp_path: Path, urls: list[str]) -> None:
    """Submitters hear the id before any event of it (client demands B8)."""
    async with rig(tmp_path, urls[0]) as r:
        order = submission(saved())
        with r.dispatcher.hold(1, order.prompt_id):
            await r.store.submit(order)
            await r.run(saved(), 2)  # the dispatcher looked at the queue meanwhile, and passed it by
            assert r.heard.of(order.prompt_id) == []
        assert (await r.final(order.prompt_id))[0].state is JobState.SUCCEEDED


async def test_a_job_of_a_deleted_account_ends(tmp_path: Path, urls: list[str]) -> None:
    """It failed for ever and kept being assigned; the backend is free again."""
    async with rig(tmp_path, urls[0]) as r:
        good = r.dispatcher.carrier.owner_of

        async def owner_of(user_id: int, secrets: Mapping[str, Any]) -> Owner:
            if user_id == 7:
                raise NotFound("There is no user 7.")
            return await good(user_id, secrets)

        r.dispatcher.carrier.owner_of = owner_of
        job, _ = await r.run(saved(), 7)
        assert job.state is JobState.FAILED
        assert (await r.run(saved()))[0].state is JobState.SUCCEEDED


async def test_a_runner_that_dies_is_not_tried_for_ever(tmp_path: Path, urls: list[str]) -> None:
    """A bug of ours costs that job, after as many tries as a lost backend; the queue goes on."""
    async with rig(tmp_path, urls[0], job_poll_s=0.05) as r:
        good, calls = r.dispatcher.carrier.owner_of, []

        async def owner_of(user_id: int, secrets: Mapping[str, Any]) -> Owner:
            if user_id == 7:
                calls.append(user_id)
                raise ZeroDivisionError
            return await good(user_id, secrets)

        r.dispatcher.carrier.owner_of = owner_of
        job, document = await r.run(saved(), 7)
        assert job.state is JobState.FAILED and len(calls) == 3
        assert "internal error" in document.messages[0][1]["exception_message"]
        assert (await r.run(saved()))[0].state is JobState.SUCCEEDED


async def test_directories_that_cannot_be_made_now_are_tried_again(tmp_path: Path, urls: list[str]) -> None:
    """A full disk in front of the job is waited for, not counted."""
    async with rig(tmp_path, urls[0], job_poll_s=0.05) as r:
        good, calls = r.dispatcher.carrier.owner_of, []

        async def owner_of(user_id: int, secrets: Mapping[str, Any]) -> Owner:
            calls.append(user_id)
            if len(calls) <= 5:
                raise DiskFull("no room")
            return await good(user_id, secrets)

        r.dispatcher.carrier.owner_of = owner_of
        assert (await r.run(saved()))[0].state is JobState.SUCCEEDED


async def test_an_input_that_was_deleted_meanwhile(tmp_path: Path, urls: list[str]) -> None:
    """The backend refuses, and the user's own name is in the error."""
    async with rig(tmp_path, urls[0]) as r:
        picture(r.dirs(1).input / "photo.png")
        prompt = loaded("photo.png")
        (r.dirs(1).input / "photo.png").unlink()
        job, document = await r.run(prompt)
        assert job.state is JobState.FAILED
        assert "photo.png" in document.messages[-1][1]["exception_message"]


async def test_a_link_in_the_output_directory(tmp_path: Path, urls: list[str]) -> None:
    """A job never writes through it."""
    async with rig(tmp_path, urls[0]) as r:
        (r.dirs(1).output / "nas").symlink_to(tmp_path)
        job, document = await r.run(saved(prefix="nas/x"))
        assert job.state is JobState.FAILED
        assert "remove that link" in document.messages[-1][1]["exception_message"]
        assert not list(tmp_path.glob("x_*"))


async def test_a_new_backend_under_an_old_id(tmp_path: Path, urls: list[str]) -> None:
    """SQLite gives a removed row's id to the next one."""
    async with rig(tmp_path, urls[0]) as r:
        await r.registry.remove(1)
        row = await r.registry.add(urls[1])
        assert row.id == 1
        await r.pool.refresh()
        assert r.pool.members[1].client.url == urls[1]
        await r.eventually(lambda: r.pool.members[1].idle)
        assert (await r.run(saved()))[0].state is JobState.SUCCEEDED


VIDEO = {**A, "format": "video/mp4"}
STRANGE_UI: list[tuple[str, int]] = [
    ("{}", 0),
    (f'{{"2": {{"images": [{json.dumps(A)}]}}}}', 1),
    (f'{{"2": {{"gifs": [{json.dumps(VIDEO)}], "n": NaN, "m": [Infinity, 1e999]}}}}', 1),
    (f'{{"2": {{"r": [[{{"deep": {json.dumps(A)}}}], "text"]}}, "3": null, "4": "x", "5": [1]}}', 1),
    (json.dumps({"2": {"text": ["x" * 3_000_000]}}), 0),
    (json.dumps({"2": {"images": [A, A]}}), 1),
    ('{"2": {"a": ["\\u0000 \\ud800"]}}', 0),
]


@pytest.mark.parametrize(("ui", "files"), STRANGE_UI)
async def test_outputs_of_every_shape_are_kept_as_json(tmp_path: Path, ui: str, files: int) -> None:
    """Nested, NaN, null instead of an object, megabytes: the job succeeds and browsers can read it."""
    async with strange_backend(ui=ui, files={"a.png": b"content"}) as strange, rig(tmp_path, strange.url) as r:
        job, document = await r.run(saved())
        assert job.state is JobState.SUCCEEDED
        assert len(r.files()) == files
        json.dumps(document.outputs, allow_nan=False)
        executed = [data for kind, data in r.heard.of(job.prompt_id) if kind == "executed"]
        assert {data["node"]: data["output"] for data in executed} == document.outputs


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a\\b", "\udcff.png", "", "x" * 300])
async def test_a_backend_cannot_write_where_it_likes(tmp_path: Path, name: str) -> None:
    """Names are the backend's word, and it may be hacked."""
    ui = json.dumps({"2": {"images": [{**A, "filename": name}, {**A, "subfolder": "../.."}]}})
    async with strange_backend(ui=ui, files={name: b"content"}) as strange, rig(tmp_path, strange.url) as r:
        job, document = await r.run(saved())
        assert job.state is JobState.FAILED and r.files() == []
        assert "outside its folders" in document.messages[-1][1]["exception_message"]


async def test_a_node_that_shows_its_input(tmp_path: Path) -> None:
    """The staged name becomes the user's own again, and nothing is fetched."""
    info = INFO | {"LoadImage": {"input": {"required": {"image": [[], {"image_upload": True}]}}}}
    async with strange_backend(info=info) as strange, rig(tmp_path, strange.url) as r:
        picture(r.dirs(1).input / "sub/photo.png")
        staged = f"{hashlib.sha256((r.dirs(1).input / 'sub/photo.png').read_bytes()).hexdigest()[:40]}.png"
        strange.ui = json.dumps(
            {"1": {"images": [{"filename": staged, "subfolder": user_folder(f"{1:020x}"), "type": "input"}]}}
        )
        strange.files[staged] = (r.dirs(1).input / "sub/photo.png").read_bytes()
        _, document = await r.run({"1": node("LoadImage", image="sub/photo.png")})
        assert document.outputs["1"]["images"] == [{"filename": "photo.png", "subfolder": "sub", "type": "input"}]
        assert not list(r.dirs(1).input.glob("cluster*"))


async def test_a_password_in_a_backend_s_address_is_used_and_never_shown(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither in logs nor in the member's error."""
    with caplog.at_level(logging.DEBUG):
        async with strange_backend(login="ann:hunter2") as strange, rig(tmp_path, strange.url) as r:
            assert (await r.run(saved()))[0].state is JobState.SUCCEEDED
            strange.login = "ann:changed"
            await r.eventually(lambda: r.health() == [Health.DOWN])
            member = r.pool.members[1]
            assert member.error and "hunter2" not in member.error + member.row.name
    assert "hunter2" not in "".join(f"{record.getMessage()} {vars(record)}" for record in caplog.records)


@pytest.mark.parametrize("info", [[], "x", {"A": None, "B": {"input": 3}}, {"A": {"input": {"required": {"x": None}}}}])
async def test_an_odd_object_info_does_not_end_the_probing(tmp_path: Path, info: Any) -> None:
    """The backend is of no use until it answers properly, and then it is."""
    async with strange_backend(info=info) as strange, rig(tmp_path, probe_interval_s=0.1) as r:
        await r.registry.add(strange.url)
        await r.pool.refresh()
        member = r.pool.members[1]
        await r.eventually(lambda: member.health is not Health.JOINING or member.error is not None)
        strange.info = INFO
        r.pool.read_again(member)
        await r.eventually(lambda: member.idle and "SaveImage" in r.pool.info.union)
