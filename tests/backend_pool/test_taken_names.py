"""A name that comes free is another file's next: nothing that once lay there is shown, kept or removed in its stead."""

import asyncio
import os
import shutil
import signal
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from PIL import Image

from backend_pool.backends.health import Health
from backend_pool.comfy.client import FileRef
from backend_pool.files.moved_note import moved_in
from backend_pool.files.noted_files import NotedFiles
from backend_pool.files.user_files import version_at
from backend_pool.job_state import JobState
from backend_pool.model import JobDocument, JsonDict
from tests.backend_pool.conftest import Start
from tests.backend_pool.graphs import sampled, saved
from tests.backend_pool.rig import arm, rig, user_dirs
from tests.backend_pool.test_recovery import carried_on, outcome, process, queue, status
from tests.backend_pool.test_way import picture

RED, GREEN = 0xFF0000, 0x00FF00
FIRST, SECOND = "ComfyUI_00001_.png", "ComfyUI_00002_.png"
SOURCE, HERE, THERE = (FileRef(name, "", "output") for name in ("x_00001_.png", "a.png", "b.png"))


def name_of(document: JobDocument, node: str = "2") -> str:
    """What the job's only picture is called."""
    (image,) = document.outputs[node]["images"]
    return str(image["filename"])


def colour(path: Path) -> int:
    """Of a picture's first pixel."""
    with Image.open(path) as picture:
        red, green, blue = picture.convert("RGB").getpixel((0, 0))  # type: ignore[misc]
    return int(red << 16 | green << 8 | blue)


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("sweep", [False, True])
async def test_a_deleted_picture_is_not_the_next_one(tmp_path: Path, start: Start, sweep: bool, restart: bool) -> None:
    """Its user deletes it, another takes the name, and the first workflow is queued again: the backend serves it from
    its cache, or has a note of where it was. Renders past the cache where that note is all there is."""
    engine = start()
    root, again = tmp_path / "one", tmp_path / ("two" if restart else "one")
    root.mkdir()
    async with AsyncExitStack() as stack:
        r = await stack.enter_async_context(rig(root, engine.url, sweep_backends=sweep))
        assert name_of((await r.run(saved(RED)))[1]) == FIRST
        (left,) = engine.base_dir.glob("output/*/*.png")
        if sweep:
            await r.eventually(lambda: moved_in(left.read_bytes()) is not None)
        if restart:
            await stack.aclose()
            again.mkdir()
            shutil.move(root / "users", again / "users")
            os.utime(left, (1e9, 1e9))  # made well before the job: HTTP dates have whole seconds
            r = await stack.enter_async_context(rig(again, engine.url, sweep_backends=sweep))
        (r.dirs(1).output / FIRST).unlink()
        picture(r.dirs(1).output / FIRST, "#00ff00")
        job, document = await r.run(saved(RED))
        assert r.heard.first(job.prompt_id, "execution_cached")["nodes"] == ["1", "2"]
        assert job.state is JobState.SUCCEEDED and name_of(document) == SECOND and job.attempt == 1 + sweep
        assert [colour(r.dirs(1).output / name) for name in (FIRST, SECOND)] == [GREEN, RED]


async def test_a_job_that_comes_back_is_not_shown_the_file_that_took_its_name(tmp_path: Path, start: Start) -> None:
    """Its picture was at home when its backend was emptied; a job in front of it got the number elsewhere; and the
    backend has the first one's picture in its cache."""
    one, two = start("--step-ms", "20"), start()
    both = saved(RED) | sampled(200, prefix="paint")
    async with rig(tmp_path) as r:
        await r.registry.add(one.url, labels=["one"])
        await r.registry.add(two.url, labels=["two"])
        await r.join()
        first = await r.submit(both, labels=["one"])
        await r.heard.until(first, lambda kind, data: kind == "executed" and data["node"] == "2")
        second = await r.submit(saved(GREEN), number=-1.0, labels=["two"])
        r.pool.members[1].evict.set()
        _, green = await r.final(second)
        job, red = await r.final(first)
        assert job.state is JobState.SUCCEEDED and job.attempt == 1
        assert [data["nodes"] for kind, data in r.heard.of(first) if kind == "execution_cached"][1][:2] == ["1", "2"]
        assert (name_of(green), name_of(red)) == (FIRST, SECOND)
        assert [colour(r.dirs(1).output / name) for name in (FIRST, SECOND)] == [GREEN, RED]


async def test_a_name_that_is_taken_between_its_note_and_its_file(tmp_path: Path, start: Start) -> None:
    """kill -9 there, and another job's picture gets the name: that one stays, and this one gets the next."""
    engine = start()
    prompt_id = await queue(tmp_path, engine, saved(RED))
    with process(tmp_path, "noted") as first:
        assert await status(first) == -signal.SIGKILL
    output = user_dirs(tmp_path, 1).output
    picture(output / FIRST, "#00ff00")
    await carried_on(tmp_path)
    state, outputs, _ = await outcome(tmp_path, prompt_id)
    assert state is JobState.SUCCEEDED and outputs["2"]["images"][0]["filename"] == SECOND
    assert (colour(output / FIRST), colour(output / SECOND)) == (GREEN, RED)


async def test_a_rerun_knows_nothing_of_another_backend_s_files(tmp_path: Path, start: Start) -> None:
    """It was given back with a picture that the first had in its cache; the second gives that name to another."""
    one, two = start("--step-ms", "20"), start("--step-ms", "20")
    green = saved(GREEN)
    three = saved(RED) | {"11": green["1"], "12": green["2"] | {"inputs": green["2"]["inputs"] | {"images": ["11", 0]}}}
    three |= sampled(200, prefix="paint")
    async with rig(tmp_path, one.url) as r:
        assert name_of((await r.run(green))[1]) == FIRST
        prompt_id = await r.submit(three)
        shown = {"2", "12"}
        while shown:
            shown -= {data["node"] for kind, data in r.heard.of(prompt_id) if kind == "executed"}
            await asyncio.sleep(0.02)
        await r.registry.add(two.url)
        await r.pool.refresh()
        await r.eventually(lambda: r.health() == [Health.UP] * 2)
        one.kill()
        job, document = await r.final(prompt_id)
        assert job.state is JobState.SUCCEEDED and job.backend_id == 2
        output = r.dirs(1).output
        assert [colour(output / name_of(document, node)) for node in ("2", "12")] == [RED, GREEN]
        assert colour(output / FIRST) == GREEN


async def test_a_backend_s_note_is_of_the_file_as_it_came(tmp_path: Path, start: Start) -> None:
    """Not of the one that got its name while the job went on."""
    engine = start("--step-ms", "20")
    async with rig(tmp_path, engine.url) as r:
        prompt_id = await r.submit(saved(RED) | sampled(40, prefix="paint"))
        await r.heard.until(prompt_id, lambda kind, data: kind == "executed" and data["node"] == "2")
        (r.dirs(1).output / FIRST).unlink()
        picture(r.dirs(1).output / FIRST, "#00ff00")
        await r.final(prompt_id)
        (left,) = engine.base_dir.glob("output/*/ComfyUI*.png")
        await r.eventually(lambda: moved_in(left.read_bytes()) is not None)
        _, document = await r.run(saved(RED))
        assert name_of(document) == SECOND
        assert [colour(r.dirs(1).output / name) for name in (FIRST, SECOND)] == [GREEN, RED]


async def test_nothing_is_shown_that_another_job_may_take_back(tmp_path: Path, start: Start) -> None:
    """Its backend has ended it and serves the next out of its cache, then it dies with the first one's last file."""
    engine = start("--step-ms", "20")
    async with rig(tmp_path, engine.url, running_limit=2) as r:
        first = await r.submit(saved(RED) | sampled(60, prefix="paint"))
        await r.heard.until(first, lambda kind, data: kind == "executed" and data["node"] == "2")
        await arm(engine.url, fault="slow_view", bytes_per_s=1)
        await r.eventually(lambda: bool(list(r.dirs(1).output.glob(".incoming/*.part"))))
        _, document = await r.run(saved(RED))
        assert name_of(document) == SECOND and r.heard.kinds(first)[-1] != "execution_success"
        engine.kill()
        await r.eventually(lambda: not (r.dirs(1).output / FIRST).exists())
        assert colour(r.dirs(1).output / SECOND) == RED


# -- the notes themselves ------------------------------------------------------------------------------------------


def noted(root: Path, *entries: JsonDict) -> NotedFiles:
    """What a process reads out of the job's document."""
    return NotedFiles(user_dirs(root, 1), entries)


def put(root: Path, ref: FileRef, content: str) -> Path:
    """A file of the user's."""
    path = user_dirs(root, 1).root(ref.type) / ref.filename
    path.write_text(content)
    return path


def test_a_file_is_known_by_its_version(tmp_path: Path) -> None:
    """Not before it is there, not when another has its name; and what the user made of it is theirs."""
    arrived = version_at(put(tmp_path, THERE, "one"))
    notes = noted(tmp_path)
    notes.put(SOURCE, HERE, arrived, fresh=True)
    assert not notes.is_home(SOURCE) and notes.own_place(SOURCE) is None
    other = put(tmp_path, HERE, "two")
    os.utime(other, ns=(1, 1))
    assert not notes.is_home(SOURCE) and notes.own_place(SOURCE) is None
    notes.discard(())
    assert other.read_text() == "two" and notes.entries == []


def test_notes_are_read_by_the_next_process(tmp_path: Path) -> None:
    """A file is removed with the job that brought it, one that was the user's before stays; what is shown is kept."""
    own, older = put(tmp_path, HERE, "one"), put(tmp_path, THERE, "two")
    notes = noted(tmp_path)
    notes.put(SOURCE, HERE, version_at(own), fresh=True)
    notes.put(THERE, THERE, version_at(older), fresh=False)
    after = noted(tmp_path, *notes.entries)
    assert after.is_home(SOURCE) and after.own_place(SOURCE) == HERE and after.own_place(THERE) == THERE
    after.discard({HERE})
    assert after.is_home(SOURCE) and not after.is_home(THERE)
    after.discard(())
    assert not own.exists() and older.exists()


def test_a_file_that_is_written_again(tmp_path: Path) -> None:
    """Is the job's own in its old version, too, which a crash may leave there; a third one forgets the first."""
    notes, path = noted(tmp_path), put(tmp_path, HERE, "one")
    first = version_at(path)
    notes.put(SOURCE, HERE, first, fresh=True)
    notes.put(SOURCE, HERE, (4, 4), fresh=True)
    assert notes.own_place(SOURCE) == HERE and notes.is_home(SOURCE)
    notes.put(SOURCE, HERE, (5, 5), fresh=True)
    assert notes.own_place(SOURCE) is None and not notes.is_home(SOURCE)


async def test_what_its_user_makes_of_files_at_home(tmp_path: Path, start: Start) -> None:
    """While the job goes on: they are not fetched a second time."""
    engine = start("--step-ms", "20")
    both = saved(RED) | {"12": saved(prefix="other")["2"]} | sampled(60, prefix="paint")
    async with rig(tmp_path, engine.url) as r:
        prompt_id = await r.submit(both)
        await r.heard.until(prompt_id, lambda kind, data: kind == "executed" and data["node"] == "2")
        await r.heard.until(prompt_id, lambda kind, data: kind == "executed" and data["node"] == "12")
        mine = r.dirs(1).output / FIRST
        await asyncio.to_thread(mine.write_bytes, b"retouched")
        (r.dirs(1).output / "other_00001_.png").unlink()
        _, document = await r.final(prompt_id)
        assert name_of(document) == FIRST and mine.read_bytes() == b"retouched"
        assert r.files() == [f"output/{FIRST}", "output/paint_00001_.png"]
