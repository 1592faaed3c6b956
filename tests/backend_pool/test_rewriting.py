"""A prompt on its way to a stock backend and back: what it needs, staged files, names mapped back, PNG chunks."""

import json
import struct
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from backend_pool.comfy.client import FileRef
from backend_pool.comfy.frames import Message, with_metadata
from backend_pool.files.png_text import replace_prompt
from backend_pool.files.staging import SALT_INPUT, Staged, Unstageable, stage
from backend_pool.runs.translator import Translator
from tests.backend_pool.infos import info
from tests.backend_pool.rig import user_dirs
from tests.engine.graphs import node

TAG = "0123456789abcdef0123"
SALT = "salt"
FOLDER = f"cluster-{TAG}"


# -- staging -------------------------------------------------------------------------------------------------------


def test_files_are_named_by_content(tmp_path: Path) -> None:
    """Same content, same name; the user's value comes back by `restore`."""
    dirs = user_dirs(tmp_path, 1)
    (dirs.input / "a.PNG").write_bytes(b"one")
    (dirs.output / "deep").mkdir()
    (dirs.output / "deep/b.png").write_bytes(b"one")
    prompt = {
        "1": node("LoadImage", image="a.PNG"),
        "2": node("LoadOut", image="deep/b.png"),
        "3": node("Odd", file="a.PNG", n=3, x="a.PNG"),
        "4": node("LoadImage", image="none"),
        "5": node("Odd", file="on-disk.bin"),
    }
    staged = stage(prompt, info("a"), dirs, TAG, SALT)
    (name,) = staged.files
    sent = {key: entry["inputs"] for key, entry in staged.prompt.items()}
    assert sent["1"] == sent["2"] == {"image": f"{FOLDER}/{name}"}
    assert sent["3"] == {"file": f"{FOLDER}/{name}", "n": 3, "x": "a.PNG"}
    assert sent["4"] == {"image": "none"} and sent["5"] == {"file": "on-disk.bin"}
    assert staged.own[name] == FileRef("a.PNG", "", "input")
    assert json.loads(staged.restore(json.dumps([f"{FOLDER}/{name}"]))) == ["a.PNG"]
    assert prompt["1"]["inputs"]["image"] == "a.PNG"


def test_prefixes_carry_the_user_and_shows_are_salted(tmp_path: Path) -> None:
    """A node that saves under a prefix has the user in it; another output node gets an input nobody reads."""
    prompt = {
        "1": node("Save", filename_prefix="a/b"),
        "2": node("Show", images=["1", 0]),
        "3": node("Save", filename_prefix=["9", 0]),
        "4": {**node("Loader", ckpt_name="a"), "is_changed": ["forged"]},
        "5": {"class_type": "Show"},
    }
    sent = stage(prompt, info("a"), user_dirs(tmp_path, 1), TAG, SALT).prompt
    assert sent["1"]["inputs"] == {"filename_prefix": f"{FOLDER}/a/b"}
    assert sent["2"]["inputs"] == {"images": ["1", 0], SALT_INPUT: SALT}
    assert sent["3"]["inputs"] == {"filename_prefix": ["9", 0], SALT_INPUT: SALT}
    assert sent["4"] == node("Loader", ckpt_name="a")


@pytest.mark.parametrize("prefix", ["../x", "a/../../x", "/x", "..\\x", "a\0b", "\\x"])
def test_a_prefix_that_leaves_the_folder_is_refused(tmp_path: Path, prefix: str) -> None:
    """It would land in another user's folder at the backend."""
    with pytest.raises(Unstageable) as caught:
        stage({"7": node("Save", filename_prefix=prefix)}, info(), user_dirs(tmp_path, 1), TAG, SALT)
    assert caught.value.node_id == "7"


@given(st.text(min_size=1).filter(lambda text: "\0" not in text))
def test_any_name_survives_the_way_there_and_back(name: str) -> None:
    """Quotes, backslashes and lone surrogates too."""
    staged = Staged({}, undo={"cluster/abc.png": name})
    assert json.loads(staged.restore(json.dumps({"m": "see cluster/abc.png"}))) == {"m": f"see {name}"}
    windows = json.dumps({"m": "C:\\input\\cluster\\abc.png"})
    assert json.loads(staged.restore(windows)) == {"m": f"C:\\input\\{name}"}


# -- translating ---------------------------------------------------------------------------------------------------


def translator() -> Translator:
    """Upstream id `up`, the user's id with a quote in it."""
    return Translator("up-id", 'my "id"', Staged({}, undo={f"{FOLDER}/": "", "cluster/x.png": "photo.png"}))


@pytest.mark.parametrize(
    ("frame", "heard"),
    [
        ({"type": "status", "data": {}}, None),
        ({"type": "feature_flags", "data": {}}, None),
        ({"type": "progress", "data": {"prompt_id": "foreign"}}, None),
        ({"type": "custom", "data": {"x": 1}}, Message("custom", {"x": 1})),
        ({"type": "executing", "data": {"prompt_id": "up-id", "node": "1"}}, {"prompt_id": 'my "id"', "node": "1"}),
        (
            {"type": "execution_error", "data": {"exception_message": "cluster/x.png"}},
            {"exception_message": "photo.png"},
        ),
        ({"type": "executed", "data": {"output": "cluster/x.png"}}, {"output": "cluster/x.png"}),
    ],
)
def test_text_frames_in_the_user_s_terms(frame: dict[str, Any], heard: Any) -> None:
    """Foreign ones are dropped; `executed` keeps the backend's names until the files are home."""
    expected = Message(frame["type"], heard) if isinstance(heard, dict) else heard
    assert translator().text(json.dumps(frame)) == expected


def test_binary_frames_in_the_user_s_terms() -> None:
    """Types no client knows and other prompts' previews are dropped (client demands B9)."""
    mine = translator().binary(with_metadata({"prompt_id": "up-id"}, b"x"))
    assert mine == with_metadata({"prompt_id": 'my "id"'}, b"x")
    assert translator().binary(with_metadata({"prompt_id": "foreign"}, b"x")) is None
    assert translator().binary(struct.pack(">II", 4, 99) + b"{") is None
    for kind, passes in ((1, True), (3, True), (2, False), (7, False)):
        frame = struct.pack(">I", kind) + b"data"
        assert translator().binary(frame) == (frame if passes else None)
    assert translator().binary(b"") is None


# -- PNG -----------------------------------------------------------------------------------------------------------


def png(**texts: str) -> bytes:
    """A PNG with text chunks."""

    out, metadata = BytesIO(), PngInfo()
    for key, value in texts.items():
        metadata.add_text(key, value)
    Image.new("RGB", (3, 2), "red").save(out, "PNG", pnginfo=metadata)
    return out.getvalue()


@given(
    st.dictionaries(st.text(), st.text()), st.text(st.characters(codec="ascii", exclude_characters="\0"), max_size=50)
)
def test_a_prompt_is_put_back(prompt: dict[str, str], workflow: str) -> None:
    """And nothing else changes: other chunks, pixels, checksums."""

    before = png(prompt='{"ours": 1}', workflow=workflow)
    result = replace_prompt(before, lambda text: json.dumps(prompt) if text == '{"ours": 1}' else None)
    assert result is not None
    head, position = result
    with Image.open(BytesIO(head + before[position:])) as picture:
        picture.load()
        assert json.loads(picture.info["prompt"]) == prompt
        assert picture.info["workflow"] == workflow
        assert picture.getpixel((0, 0)) == (255, 0, 0)


@pytest.mark.parametrize(
    "content", [b"", b"GIF89a", png(), png(other="x"), png(prompt="{}")[:40], b"\x89PNG\r\n\x1a\n"]
)
def test_other_files_are_left_alone(content: bytes) -> None:
    """No PNG, no prompt in it, or cut off."""
    assert replace_prompt(content, lambda _text: None) is None


@given(st.binary(max_size=200))
def test_garbage_is_left_alone_or_copied(content: bytes) -> None:
    """Whatever follows a PNG's signature."""
    result = replace_prompt(b"\x89PNG\r\n\x1a\n" + content, lambda _text: "{}")
    assert result is None or result[1] <= len(content) + 8
