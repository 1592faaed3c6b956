"""Masks: the alpha channel of a picture, and what one may refer to."""

import json
from io import BytesIO

import pytest
from PIL import Image

from tests.user_sessions.light.conftest import Running
from tests.user_sessions.light.uploads import files, png, send


async def test_a_mask_becomes_the_alpha_channel_and_the_workflow_stays(session: Running) -> None:
    own = session.spec.directories.input
    (own / "photo.png").write_bytes(png((10, 20, 30), workflow='{"nodes": []}'))
    mask = png((0, 0, 0, 77), "RGBA")
    status, answer = await send(
        session,
        mask,
        "clipspace-mask.png",
        "/upload/mask",
        subfolder="clipspace",
        original_ref=json.dumps({"filename": "photo.png", "type": "input"}),
    )
    assert (status, answer) == (200, {"name": "clipspace-mask.png", "subfolder": "clipspace", "type": "input"})
    with Image.open(own / "clipspace/clipspace-mask.png") as merged:
        assert merged.mode == "RGBA"
        assert merged.getpixel((3, 3)) == (10, 20, 30, 77)
        assert merged.text["workflow"] == '{"nodes": []}'  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("ref", "status"),
    [
        ({"filename": "photo.png [input]"}, 200),
        ({"filename": "photo.png", "type": "input", "subfolder": ""}, 200),
        ({"filename": "photo.png"}, 404),
        ({"filename": "../photo.png", "type": "input"}, 400),
        ({"filename": "/etc/passwd", "type": "input"}, 400),
        ({"filename": "photo.png", "type": "input", "subfolder": "../../.."}, 403),
        ({"filename": "photo.png", "type": "nothing"}, 400),
        ({"filename": "text.txt", "type": "input"}, 400),
        ({"filename": 5}, 400),
        ({}, 400),
        ([], 400),
        (None, 400),
    ],
)
async def test_what_a_mask_refers_to(session: Running, ref: object, status: int) -> None:
    (session.spec.directories.input / "photo.png").write_bytes(png((1, 2, 3)))
    (session.spec.directories.input / "text.txt").write_bytes(b"no picture")
    mask = png((0, 0, 0, 9), "RGBA")
    answer = await send(session, mask, "m.png", "/upload/mask", original_ref=json.dumps(ref))
    assert answer[0] == status
    assert (session.spec.directories.input / "m.png").exists() is (status == 200)


async def test_a_mask_that_is_no_picture_is_refused(session: Running) -> None:
    (session.spec.directories.input / "photo.png").write_bytes(png((1, 2, 3)))
    for reference in ('{"filename": "photo.png [input]"}', "not json", ""):
        assert (await send(session, b"\x89PNG broken", "m.png", "/upload/mask", original_ref=reference))[0] == 400
    assert (await send(session, png((1, 2, 3)), "m.png", "/upload/mask"))[0] == 400
    assert files(session.spec.directories.input) == ["photo.png"]


async def test_a_mask_of_too_many_pixels_is_not_unfolded(session: Running) -> None:
    await send(session, png((1, 2, 3)))
    buffer = BytesIO()
    Image.new("1", (8001, 8000)).save(buffer, "PNG")
    reference = json.dumps({"filename": "a.png", "type": "input"})
    content = buffer.getvalue()
    status, answer = await send(session, content, "m.png", "/upload/mask", original_ref=reference)
    assert (status, answer["error"]["type"]) == (413, "too_large")
    assert files(session.spec.directories.input) == ["a.png"]
