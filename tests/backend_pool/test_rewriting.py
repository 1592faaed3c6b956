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

from backend_pool.comfy_client import FileRef
from backend_pool.frames import Message, with_metadata
from backend_pool.node_info import Needs, lacks, merge, needs, options, refused_needs, upload_kind, usable
from backend_pool.png_text import replace_prompt
from backend_pool.pool_info import PoolInfo
from backend_pool.staging import SALT_INPUT, Staged, Unstageable, stage
from backend_pool.translator import Translator
from tests.backend_pool.rig import user_dirs
from tests.engine.graphs import node

TAG = "0123456789abcdef0123"
SALT = "salt"
FOLDER = f"cluster-{TAG}"


def info(*checkpoints: str, **more: Any) -> dict[str, Any]:
    """A small object_info."""
    return {
        "Loader": {"input": {"required": {"ckpt_name": [list(checkpoints), {}]}}},
        "LoadImage": {"input": {"required": {"image": [["example.png"], {"image_upload": True}]}}},
        "LoadOut": {
            "input": {"required": {"image": ["COMBO", {"image_upload": True, "image_folder": "output", "options": []}]}}
        },
        "Odd": {"input": {"optional": {"file": [["on-disk.bin"], {}], "n": ["INT", {"default": 1}], "x": "STRING"}}},
        "Save": {"input": {"required": {"filename_prefix": ["STRING", {}]}}, "output_node": True},
        "Show": {"input": {"required": {"images": ["IMAGE"]}}, "output_node": True},
        **more,
    }


# -- what a pool offers --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "choices"),
    [
        ([["a", "b"], {}], ["a", "b"]),
        ([[]], []),
        (["COMBO", {"options": ["a"]}], ["a"]),
        (["COMBO"], []),
        (["COMBO", {"remote": {}}], []),
        (["INT", {}], None),
        ("STRING", None),
        ([], None),
        (None, None),
        (3, None),
    ],
)
def test_options(spec: Any, choices: list[str] | None) -> None:
    """Old and new list inputs; custom nodes' accidents are no lists."""
    assert options(spec) == choices
    assert upload_kind(spec) is None


def test_the_union_has_every_choice_once() -> None:
    """Files lists of users are not merged over backends: they are each user's own."""
    merged = merge([info("a", "b"), info("b", "c", Only={"input": {}})])
    assert merged["Loader"]["input"]["required"]["ckpt_name"][0] == ["a", "b", "c"]
    assert "Only" in merged
    assert info("a", "b")["Loader"]["input"]["required"]["ckpt_name"][0] == ["a", "b"]


@given(st.lists(st.lists(st.text(max_size=3), max_size=4), min_size=1, max_size=4))
def test_a_union_holds_exactly_what_its_parts_hold(lists: list[list[str]]) -> None:
    """In the order of first sight, without doubles from later ones."""
    merged = options(merge([info(*names) for names in lists])["Loader"]["input"]["required"]["ckpt_name"])
    assert merged is not None and set(merged) == {name for names in lists for name in names}
    assert merged[: len(lists[0])] == lists[0]


@pytest.mark.parametrize("broken", [None, 3, [], {"input": 3}, {"input": None}])
def test_a_broken_node_does_not_hide_the_others(broken: Any) -> None:
    """A custom node may answer anything."""
    found = usable(info("a", Broken=broken))
    assert "Broken" not in found and "Loader" in found
    assert PoolInfo([found]).document(lambda _where, _kind: []).startswith(b"{")


def test_a_backend_lacks_what_it_does_not_list() -> None:
    """Nodes and models, in words; a user's own files are nobody's lack."""
    union = merge([info("a"), info("b", Only={"input": {}})])
    prompt = {"1": node("Loader", ckpt_name="b"), "2": node("LoadImage", image="mine.png"), "3": node("Only")}
    wanted = needs(prompt, union)
    assert wanted == Needs(frozenset({"Loader", "LoadImage", "Only"}), frozenset({("Loader", "ckpt_name", "b")}))
    assert lacks(wanted, info("a")) == "node Only"
    assert lacks(wanted, info("a", Only={"input": {}})) == "checkpoint b"
    assert lacks(wanted, info("b", Only={"input": {}})) is None
    assert lacks(needs({"1": node("Loader", ckpt_name=["2", 0])}, union), info()) is None


@pytest.mark.parametrize(
    ("spec", "missing"),
    [
        ([[], {}], "checkpoint b"),
        (["COMBO", {}], "checkpoint b"),
        (["COMBO", {"options": ["a"]}], "checkpoint b"),
        (["COMBO", {"options": ["a", "b"]}], None),
        (["COMBO", {"remote": {"route": "/x"}}], None),
        ([["a"], {"remote": {"route": "/x"}}], None),
        (["STRING", {}], None),
    ],
)
def test_an_empty_list_offers_nothing(spec: Any, missing: str | None) -> None:
    """A backend without any checkpoint got the jobs and failed them; lists filled at run time are its own affair."""
    wanted = Needs(frozenset({"Loader"}), frozenset({("Loader", "ckpt_name", "b")}))
    assert lacks(wanted, {"Loader": {"input": {"required": {"ckpt_name": spec}}}}) == missing


def test_a_list_that_is_not_there_offers_nothing() -> None:
    wanted = Needs(frozenset({"Loader"}), frozenset({("Loader", "ckpt_name", "b")}))
    assert lacks(wanted, {"Loader": {}}) == "checkpoint b"


NOT_LISTED = {"type": "value_not_in_list", "extra_info": {"input_name": "ckpt_name", "received_value": "b"}}
REFUSED_B = Needs(frozenset({"Loader"}), frozenset({("Loader", "ckpt_name", "b")}))


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        ({"error": {"type": "x"}, "node_errors": {"1": {"errors": [NOT_LISTED]}}}, REFUSED_B),
        (
            {"error": {"type": "missing_node_type", "extra_info": {"class_type": "N"}}},
            Needs(frozenset("N"), frozenset()),
        ),
        ({"error": {"type": "missing_node_type"}}, None),
        ({"node_errors": {"1": {"errors": [NOT_LISTED, {"type": "required_input_missing"}]}}}, None),
        ({"node_errors": {"1": {"errors": [{**NOT_LISTED, "type": "value_bigger_than_max"}]}}}, None),
        ({"node_errors": {"1": {"errors": [{"type": "value_not_in_list"}]}}}, None),
        ({"node_errors": {"1": {"errors": ["text"]}}}, None),
        ({"node_errors": {"1": None, "7": {"errors": [NOT_LISTED]}}}, None),
        ({"node_errors": []}, None),
        ({}, None),
        ("text", None),
        (None, None),
    ],
)
def test_what_a_refusal_says_is_missing(body: Any, wanted: Needs | None) -> None:
    """Only when nothing else is wrong with the prompt."""
    assert refused_needs(body, {"1": node("Loader", ckpt_name="b")}) == wanted


def test_each_user_s_own_files_are_shown() -> None:
    """And nobody else's: the common part is shared, the nodes with file lists are written per user."""
    pool = PoolInfo([usable(info("a"))])
    asked: list[tuple[str, str]] = []

    def files(where: str, kind: str) -> list[str]:
        asked.append((where, kind))
        return [f"{where}.png"]

    document = json.loads(pool.document(files))
    assert document["LoadImage"]["input"]["required"]["image"] == [["input.png"], {"image_upload": True}]
    assert document["LoadOut"]["input"]["required"]["image"][1]["options"] == ["output.png"]
    assert asked == [("input", "image/"), ("output", "image/")]
    assert document.keys() == info("a").keys() and document["Loader"] == info("a")["Loader"]
    assert pool.node("LoadImage", files)["LoadImage"] == document["LoadImage"]
    assert pool.node("Nothing", files) == {}


@pytest.mark.parametrize("infos", [[], [{}], [info("a")], [{"LoadImage": info()["LoadImage"]}]])
def test_the_document_is_json_for_any_pool(infos: list[Any]) -> None:
    """Also with no common or no personal part."""
    assert json.loads(PoolInfo(infos).document(lambda _where, _kind: [])).keys() == merge(infos).keys()


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
    """Types no client knows and other prompts' previews are dropped (CLIENT_DEMANDS B9)."""
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
    result = replace_prompt(before, json.dumps(prompt))
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
    assert replace_prompt(content, "{}") is None


@given(st.binary(max_size=200))
def test_garbage_is_left_alone_or_copied(content: bytes) -> None:
    """Whatever follows a PNG's signature."""
    result = replace_prompt(b"\x89PNG\r\n\x1a\n" + content, "{}")
    assert result is None or result[1] <= len(content) + 8
