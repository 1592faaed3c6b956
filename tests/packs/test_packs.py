"""Node packs as people install them, used by two people at once: routes, events, and files told or not."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.contract.wire import Frame
from tests.packs.conftest import Newcomer
from tests.packs.place import SHARING, STOCK, WORKER, Level
from tests.system.people import Someone

pytestmark = [pytest.mark.comfyui, pytest.mark.slow]
LEVELS = [pytest.param(level, id=level.name) for level in (STOCK, WORKER, SHARING)]
RED, BLUE = 0xFF0000, 0x0000FF


async def runs(someone: Someone, level: Level, color: int, **last: Any) -> tuple[str, list[Frame]]:
    """Run a prompt to its end: its id and its frames."""
    async with someone.comfy.socket(f"tab of {someone.person.name}") as socket:
        prompt_id = await someone.comfy.submit(level.prompt(color, **last), f"tab of {someone.person.name}")
        return prompt_id, await socket.job(prompt_id)


async def both(newcomer: Newcomer, level: Level, **last: Any) -> list[tuple[Someone, str, list[Frame]]]:
    """Ann with a red picture and Ben with a blue one, at once."""
    people = [await newcomer("ann"), await newcomer("ben")]
    ran = await asyncio.gather(
        *(runs(someone, level, color, **last) for someone, color in zip(people, (RED, BLUE), strict=True))
    )
    return [(someone, *each) for someone, each in zip(people, ran, strict=True)]


def colors(someone: Someone) -> dict[str, int]:
    """What lies in the output directory, with the colour of each picture."""
    root = someone.folder / "output"
    return {path.relative_to(root).as_posix(): _color(path) for path in someone.files()}


def _color(path: Path) -> int:
    with Image.open(path) as picture:
        red, green, blue = picture.convert("RGB").getpixel((0, 0))  # type: ignore[misc]
        return int(red) << 16 | int(green) << 8 | int(blue)


@pytest.mark.parametrize("level", LEVELS)
async def test_events_of_nodes_reach_only_who_queued_the_job(newcomer: Newcomer, level: Level) -> None:
    people = [await newcomer("ann"), await newcomer("ben")]
    ran = await asyncio.gather(
        *(runs(each, level, RED, class_type="Telling", text=f"for {each.person.name}") for each in people)
    )
    for each, (_, frames) in zip(people, ran, strict=True):
        told = [(frame.kind, frame.data["text"]) for frame in frames if frame.kind.startswith("telling.")]
        assert told == [(kind, f"for {each.person.name}") for kind in ("telling.you", "telling.all")]


@pytest.mark.parametrize("level", LEVELS)
async def test_files_of_a_node_that_asked_for_its_directory_once(newcomer: Newcomer, level: Level) -> None:
    for someone, prompt_id, _ in await both(newcomer, level, class_type="EarlySave"):
        (image,) = (await someone.comfy.history(prompt_id))["outputs"]["3"]["images"]
        made = colors(someone)
        assert made == {f"{image['subfolder']}/{image['filename']}": RED if "ann" in someone.person.name else BLUE}
        assert (await someone.comfy.get("/view", params=image)).status == 200


async def test_files_nobody_was_told_of_stay_on_a_stock_backend(newcomer: Newcomer) -> None:
    for someone, prompt_id, _ in await both(newcomer, STOCK, class_type="SilentSave", name="same"):
        assert (await someone.job(prompt_id))["status"] == "completed"
        assert colors(someone) == {}


@pytest.mark.parametrize("level", [pytest.param(level, id=level.name) for level in (WORKER, SHARING)])
async def test_files_nobody_was_told_of_come_home_from_a_worker(newcomer: Newcomer, level: Level) -> None:
    for someone, prompt_id, _ in await both(newcomer, level, class_type="SilentSave", name="same"):
        assert (await someone.job(prompt_id))["status"] == "completed"
        assert colors(someone) == {"silent/same.png": RED if "ann" in someone.person.name else BLUE}


async def test_routes_answer_each_from_their_own_session(newcomer: Newcomer) -> None:
    ann, ben = await newcomer("ann"), await newcomer("ben")
    for someone, count in ((ann, 3), (ben, 1)):
        for number in range(count):
            answer = await someone.comfy.post("/api/notebook/notes", {"text": f"{someone.person.name} {number}"})
            assert answer.status == 200, answer.body
    hers, his = [(await someone.comfy.get("/notebook/notes")).json() for someone in (ann, ben)]
    assert hers["notes"] == [f"{ann.person.name} {number}" for number in range(3)]
    assert his["notes"] == [f"{ben.person.name} 0"]
    assert (hers["calls"], his["calls"]) == (3, 1)
    assert hers["process"] != his["process"]


async def test_a_pack_that_breaks_at_import_stops_nothing_else(newcomer: Newcomer) -> None:
    ann = await newcomer("ann")
    listed = (await ann.comfy.get("/extensions")).json()
    assert {"/extensions/notebook/notebook.js", "/extensions/telling/telling.js"} <= set(listed)
    assert (await ann.comfy.get("/extensions/notebook/notebook.js")).status == 200
    session = (await ann.comfy.get("/cluster/api/v1/session")).json()
    assert [pack["pack"] for pack in session["failed_packs"]] == ["broken_at_import"]
    assert "its library is missing" in session["failed_packs"][0]["error"]
