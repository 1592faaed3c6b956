"""The user's own prompt in files that a backend wrote from a rewritten one, whatever the format."""

import json
import random
import struct
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from backend_pool.files.own_prompt import OwnPrompt
from backend_pool.files.staging import JOINER, SALT_INPUT, Staged, stage
from backend_pool.files.text import WINDOW, _ogg_crc, _replacements, restore_prompt
from tests.backend_pool.infos import info
from tests.backend_pool.rig import user_dirs
from tests.engine.graphs import node

TAG = "0123456789abcdef0123"
INFO = info("a", **{JOINER: {}, "Text": {}})
PROMPT: dict[str, Any] = {
    "3": node("Save", filename_prefix="sub/pic", text='quo"ted \\ 日'),
    "7": {**node("LoadImage", image="photo.png"), "_meta": {"title": "my photo"}},
    "8": node("Show", images=["7", 0]),
    "9": node("Save", filename_prefix=["3", 0]),
}
WORKFLOW = {"nodes": [], "extra": {"text": "{}"}}


@pytest.fixture
def staged(tmp_path: Path) -> Staged:
    """What a backend gets of PROMPT."""
    dirs = user_dirs(tmp_path, 1)
    (dirs.input / "photo.png").write_bytes(b"x")
    return stage(PROMPT, INFO, dirs, TAG, "a" * 20)


@pytest.fixture
def own(staged: Staged) -> OwnPrompt:
    """The way back."""
    return OwnPrompt(PROMPT, staged)


def executed(staged: Staged) -> dict[str, Any]:
    """What a backend embeds: the prompt with the fingerprints it found."""
    made: dict[str, Any] = json.loads(json.dumps(staged.prompt))
    made["7"]["is_changed"] = ["0123"]
    return made


def restored(tmp_path: Path, own: OwnPrompt, content: bytes) -> bytes:
    """A file after the prompt was put back."""
    path = tmp_path / "file"
    path.write_bytes(content)
    restore_prompt(tmp_path, path, own)
    return path.read_bytes()


def test_our_traces_are_taken_out(staged: Staged, own: OwnPrompt) -> None:
    """Nodes of ours, salts, fingerprints, names."""
    assert staged.hidden and any(SALT_INPUT in entry["inputs"] for entry in staged.prompt.values())
    assert own.of(executed(staged)) == PROMPT
    assert own.of({"1": node("Text", text="x")}) is None
    others: list[Any] = [None, [], {}, {"a": 1}, {"1": {"class_type": "X"}}, "text"]
    for other in others:
        assert own.of(other) is None


def test_a_prompt_of_another_job_is_mapped_node_by_node(staged: Staged, own: OwnPrompt) -> None:
    """A file out of a cache keeps what made it, in the user's words as far as they are known."""
    cached = executed(staged)
    cached["3"]["inputs"]["text"] = "another"
    cached["7"]["inputs"]["image"] = f"cluster-{TAG}/{'f' * 40}.png"
    found = own.of(cached)
    assert found is not None
    assert found["3"] == node("Save", filename_prefix="sub/pic", text="another")
    assert found["7"] == {**node("LoadImage", image=f"{'f' * 40}.png"), "_meta": {"title": "my photo"}}
    assert found["8"] == PROMPT["8"] and found["9"] == PROMPT["9"]


def test_webp(tmp_path: Path, staged: Staged, own: OwnPrompt) -> None:
    """As ComfyUI's SaveAnimatedWEBP writes it: EXIF tags of `key:json`."""
    exif, out = Image.Exif(), BytesIO()
    exif[0x0110], exif[0x010F] = f"prompt:{json.dumps(executed(staged))}", f"workflow:{json.dumps(WORKFLOW)}"
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "blue")]
    frames[0].save(out, "WEBP", save_all=True, append_images=frames[1:], exif=exif)
    with Image.open(BytesIO(restored(tmp_path, own, out.getvalue()))) as picture:
        assert picture.n_frames == 2  # type: ignore[attr-defined]
        told = picture.getexif()
        assert json.loads(told[0x0110].removeprefix("prompt:")) == PROMPT
        assert json.loads(told[0x010F].removeprefix("workflow:")) == WORKFLOW


@pytest.mark.parametrize("kind", ["tEXt", "iTXt", "comf"])
def test_png(tmp_path: Path, staged: Staged, own: OwnPrompt, kind: str) -> None:
    """Still and animated: whatever chunk it stands in, checksums right."""
    texts, out, ours = PngInfo(), BytesIO(), json.dumps(executed(staged))
    if kind == "comf":
        texts.add(b"comf", b"prompt\0" + ours.encode(), after_idat=True)
    elif kind == "tEXt":
        texts.add_text("prompt", ours)
    else:
        texts.add_itxt("prompt", ours)
    texts.add_text("workflow", json.dumps(WORKFLOW))
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "blue")]
    frames[0].save(out, "PNG", pnginfo=texts, save_all=True, append_images=frames[1:])
    after = restored(tmp_path, own, out.getvalue())
    chunks, position = {}, 8
    while position < len(after):
        length, name = struct.unpack_from(">I4s", after, position)
        body = after[position + 4 : position + 8 + length]
        assert struct.unpack_from(">I", after, position + 8 + length)[0] == zlib.crc32(body)
        chunks[name.decode(), body[4:10]] = body[4:]
        position += 12 + length
    body = chunks[kind, b"prompt"]
    assert json.loads(body[body.index(b"{") :]) == PROMPT
    assert json.loads(chunks["tEXt", b"workfl"].partition(b"\0")[2]) == WORKFLOW
    with Image.open(BytesIO(after)) as picture:
        picture.load()


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("place", ["head", "tail"])
def test_other_formats_keep_their_length(
    tmp_path: Path, staged: Staged, own: OwnPrompt, place: str, nested: bool
) -> None:
    """Plain JSON (FLAC, MP3, MP4, SVG) and JSON text in JSON (safetensors, GLB, VideoHelperSuite)."""
    text = json.dumps(executed(staged))
    outer = json.dumps({"prompt": text, "x": 1}) if nested else f"\0prompt={text}\0end"
    filling = random.Random(1).randbytes(3 * WINDOW if place == "tail" else 1000)
    content = (filling + outer.encode()) if place == "tail" else (outer.encode() + filling)
    after = restored(tmp_path, own, content)
    assert len(after) == len(content)
    told = after[len(filling) :] if place == "tail" else after[: len(outer)]
    if nested:
        assert json.loads(json.loads(told)["prompt"]) == PROMPT
    else:
        assert json.loads(told.decode().removeprefix("\0prompt=").removesuffix("\0end")) == PROMPT
    assert filling in after and b"cluster" not in told


def test_an_ogg_page_gets_a_new_checksum(tmp_path: Path, staged: Staged, own: OwnPrompt) -> None:
    """Else players drop the page."""
    body = b"OpusTags" + json.dumps(executed(staged)).encode()
    lacing = bytes([255] * (len(body) // 255) + [len(body) % 255])
    page = bytearray(b"OggS" + bytes(22) + bytes([len(lacing)]) + lacing + body)
    page[22:26] = struct.pack("<I", _ogg_crc(page))
    after = bytearray(restored(tmp_path, own, bytes(page)))
    assert len(after) == len(page) and json.loads(after[after.index(b"{") :]) == PROMPT
    told = bytes(after[22:26])
    after[22:26] = bytes(4)
    assert struct.pack("<I", _ogg_crc(after)) == told
    assert _ogg_crc(b"OggS") == 0x5FB0A94F


def test_other_files_are_left_alone(tmp_path: Path, own: OwnPrompt) -> None:
    """Only a prompt of ours is touched, also one of a job long ago."""
    small = {"9": node("Text", text=f"cluster-{TAG}/")}
    content = json.dumps(small).encode()
    assert json.loads(restored(tmp_path, own, content)) == {"9": node("Text", text="")}
    for other in (b"", b"text", json.dumps(WORKFLOW).encode(), json.dumps(PROMPT).encode(), b'{"1": {"inputs": '):
        assert restored(tmp_path, own, other) == other


@given(st.binary(max_size=300))
def test_garbage_after_a_beginning_is_left_alone(content: bytes) -> None:
    """Whatever follows what looks like a prompt."""
    nothing = OwnPrompt({}, Staged({}))
    assert list(_replacements(b'{"1": {"inputs":' + content, nothing)) == []
