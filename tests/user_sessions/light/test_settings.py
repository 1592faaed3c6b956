"""Settings: what a newcomer starts with, writers at the same time, and damaged files."""

import asyncio
import json
from typing import Any

import pytest

from tests.user_sessions.light.conftest import Running
from user_sessions.light.settings_store import FILE


async def read(session: Running, path: str = "/api/settings") -> Any:
    """GET as JSON."""
    async with session.http.get(path) as response:
        assert response.status == 200
        assert response.headers["Cache-Control"].startswith("private")
        return await response.json()


async def write(session: Running, path: str, value: object) -> int:
    """POST JSON; returns the status."""
    async with session.http.post(path, json=value) as response:
        return response.status


async def test_a_newcomer_lands_on_the_canvas(session: Running) -> None:
    settings = await read(session)
    assert settings["Comfy.TutorialCompleted"] is True
    assert settings["Comfy.InstalledVersion"].count(".") == 2
    assert settings["Comfy.Notification.ShowVersionUpdates"] is False
    assert not (session.home / FILE).exists()


async def test_one_setting_is_kept_and_the_first_ones_stay(session: Running) -> None:
    assert await write(session, "/api/settings/Comfy.ColorPalette", "dark") == 200
    assert await read(session, "/settings/Comfy.ColorPalette") == "dark"
    assert await read(session, "/settings/Comfy.TutorialCompleted") is True
    assert await read(session, "/settings/No.Such") is None
    assert json.loads((session.home / FILE).read_text())["Comfy.ColorPalette"] == "dark"


async def test_many_settings_merge(session: Running) -> None:
    assert await write(session, "/settings", {"a": 1, "b": {"c": [1, None, "ü"]}}) == 200
    assert await write(session, "/api/settings", {"a": 2}) == 200
    settings = await read(session)
    assert (settings["a"], settings["b"]) == (2, {"c": [1, None, "ü"]})


async def test_ids_may_hold_anything(session: Running) -> None:
    async with session.http.post("/settings/pack%2FOdd%20name%20%C3%BC", data="true") as response:
        assert response.status == 200
    assert (await read(session))["pack/Odd name ü"] is True


async def test_writers_at_the_same_time_lose_nothing(session: Running) -> None:
    statuses = await asyncio.gather(*(write(session, f"/settings/key.{n}", n) for n in range(50)))
    assert set(statuses) == {200}
    settings = await read(session)
    assert [settings[f"key.{n}"] for n in range(50)] == list(range(50))
    assert json.loads((session.home / FILE).read_text())["key.49"] == 49
    assert [path.name for path in session.home.iterdir() if path.is_file()] == [FILE]


@pytest.mark.parametrize("damage", ["", "{", "[1]", "null", "\x00\x01", "{" * 100_000, '{"a": 1}trailing'])
async def test_a_damaged_file_is_set_aside_not_fatal(session: Running, damage: str) -> None:
    (session.home / FILE).write_text(damage)
    assert (await read(session))["Comfy.TutorialCompleted"] is True
    aside = [path for path in session.home.iterdir() if "damaged" in path.name]
    assert [path.read_text() for path in aside] == [damage]
    assert await write(session, "/settings/a", 1) == 200
    assert (await read(session))["a"] == 1


@pytest.mark.parametrize("body", ["", "{", "nope", "NaN", '{"a": Infinity}', "[" * 100_000, "\xff\xfe"])
@pytest.mark.parametrize("path", ["/settings", "/settings/x"])
async def test_bodies_that_are_no_json_change_nothing(session: Running, path: str, body: str) -> None:
    async with session.http.post(path, data=body.encode("latin-1")) as response:
        assert response.status == 400
        assert (await response.json())["error"]["type"] == "bad_request"
    assert not (session.home / FILE).exists()


@pytest.mark.parametrize("value", [[], "text", 5, None])
async def test_settings_must_be_an_object(session: Running, value: object) -> None:
    assert await write(session, "/settings", value) == 400


async def test_a_body_beyond_the_limit_is_413(session: Running) -> None:
    async with session.http.post("/settings", data=b'{"a": "' + b"x" * 900_000 + b'"}') as response:
        assert response.status == 200

    async def chunks() -> Any:
        for _ in range(30):
            yield b"x" * 100_000

    async with session.http.post("/settings", data=chunks()) as response:
        assert response.status == 413
        assert (await response.json())["error"]["type"] == "too_large"
