"""Every way in which a node's `ui` may tell of files, and what the user gets of it."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from backend_pool.comfy.client import FileRef
from backend_pool.files.moved_note import Moved, moved_in, note_of
from backend_pool.files.references import mentions, references, replaced
from backend_pool.files.user_folder import user_folder
from backend_pool.job_state import JobState
from tests.backend_pool.conftest import Start
from tests.backend_pool.file_backend import FileBackend
from tests.backend_pool.graphs import loaded, previewed, saved
from tests.backend_pool.rig import Rig, rig
from tests.backend_pool.strange_backend import serving
from tests.backend_pool.test_way import picture
from tests.engine.graphs import node

FOLDER = user_folder(f"{1:020x}")
SAVE = {"2": node("SaveImage", filename_prefix="x")}


def ref(name: str, subfolder: str = "", kind: str = "output") -> dict[str, Any]:
    """As nodes tell of a file."""
    return {"filename": name, "subfolder": subfolder, "type": kind}


PLAIN: list[Any] = [None, True, 3, 2.5, "text", [], {}, [None, [False]], {"a": {"b": [1, "x.png"]}}]


@pytest.mark.parametrize("value", PLAIN)
def test_other_values_are_left_alone(value: Any) -> None:
    """Flags, numbers, texts."""
    assert list(references(value)) == [] == mentions(value)
    assert replaced(value, {}) == value


@pytest.mark.parametrize("key", ["images", "gifs", "audio", "video", "3d", "latents", "files", "whatever"])
def test_files_under_any_key(key: str) -> None:
    """Alone, in lists, deep inside; what stands beside the name stays."""
    entry = {**ref("a.mp4", "s"), "format": "video/mp4", "frame_rate": 8.0, "loop": None, "fullpath": "/x/a.mp4"}
    value = {key: [entry, {"deep": {"er": [entry]}}], "animated": [True], "text": ["a"]}
    assert set(references(value)) == {FileRef("a.mp4", "s", "output")}
    renamed = replaced(value, {FileRef("a.mp4", "s", "output"): FileRef("b.mp4", "", "output")})
    mine = {**entry, **ref("b.mp4")}
    assert renamed == {**value, key: [mine, {"deep": {"er": [mine]}}]}


@pytest.mark.parametrize(
    ("text", "found", "renamed"),
    [
        ("temp/bg_1.png", FileRef("bg_1.png", "", "temp"), "temp/N.png"),
        ("output/a/b.glb", FileRef("b.glb", "a", "output"), "output/S/N.png"),
        ("a/b.glb [output]", FileRef("b.glb", "a", "output"), "S/N.png [output]"),
        ("b.glb [temp]", FileRef("b.glb", "", "temp"), "N.png [temp]"),
    ],
)
def test_texts_that_name_files(text: str, found: FileRef, renamed: str) -> None:
    """In the form they have."""
    place = FileRef("N.png", "S" if found.subfolder else "", found.type)
    assert mentions({"x": [text, None, 1]}) == [found]
    assert replaced({"x": [text, None, 1]}, {found: place}) == {"x": [renamed, None, 1]}
    assert mentions({"text": [text], "string": text}) == []  # read by people


def test_texts_under_result() -> None:
    """Preview3D names a file there without its folder, and repeats its camera."""
    camera = {"filename": "x.png", "subfolder": "", "type": "temp", "z": 1.5}
    value = {"result": ["a/model.glb", camera, "temp/bg_1.png", None, 3]}
    model, back = FileRef("model.glb", "a", "output"), FileRef("bg_1.png", "", "temp")
    assert mentions(value) == [model, back] and list(references(value)) == []
    places = {model: FileRef("mine.glb", "", "output"), back: back, FileRef("x.png", "", "temp"): back}
    assert replaced(value, places) == {"result": ["mine.glb", camera, "temp/bg_1.png", None, 3]}


@pytest.mark.parametrize(
    "text",
    ["../x.png [output]", "temp/../x.png", "input/x.png", "x.png [input]", "temp/", "x" * 1100 + ".png", "a.b/c"],
)
def test_texts_that_name_none(text: str) -> None:
    """Out of the folders, of inputs, or no name."""
    assert mentions({"x": text}) == []


def test_a_note_of_where_a_file_is() -> None:
    """It says so to us alone; other content is a file's own."""
    moved = Moved(FileRef('日 "x".png', "a/b", "output"), (3, 4))
    assert moved_in(note_of(moved)) == moved
    for other in (b"", b"{}", b'{"comfy-cluster', note_of(Moved(FileRef("../x", "", "output"), (3, 4)))):
        assert moved_in(other) is None
    assert moved_in(note_of(moved) + b"x") is None
    for outside in (FileRef("x", "..", "output"), FileRef("x", "", "user")):
        assert moved_in(note_of(Moved(outside, (3, 4)))) is None


async def conclude(tmp_path: Path, ui: Any, files: dict[str, bytes]) -> tuple[Rig, Any]:
    """What becomes of a job whose backend tells this."""
    root = tmp_path / "backend"
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    async with serving(FileBackend(root=root, ui=json.dumps({"2": ui}))) as backend, rig(tmp_path, backend.url) as r:
        job, document = await r.run(SAVE)
        assert job.state is JobState.SUCCEEDED, document.messages
        return r, document.outputs["2"]


async def test_a_video_with_its_sound_and_its_picture(tmp_path: Path) -> None:
    """As VideoHelperSuite tells of them: all three come, under one number."""
    names = ("clip_00003.mp4", "clip_00003-audio.mp4", "clip_00003.png")
    gif = {**ref(names[1], FOLDER), "format": "video/mp4", "frame_rate": 8.0, "workflow": names[2]}
    ui = {"gifs": [{**gif, "fullpath": f"/data/output/{FOLDER}/{names[1]}"}], "more": [ref(names[0], FOLDER)]}
    files = {f"output/{FOLDER}/{name}": name.encode() for name in names}
    (tmp_path / "users/1/output").mkdir(parents=True)
    (tmp_path / "users/1/output/clip_00007.mp4").touch()
    r, shown = await conclude(tmp_path, ui, files)
    home = r.dirs(1).output
    (told,) = shown["gifs"]
    assert (told["filename"], told["workflow"]) == ("clip_00008-audio.mp4", "clip_00008.png")
    assert shown["more"] == [ref("clip_00008.mp4")] and told["format"] == "video/mp4" and FOLDER not in str(shown)
    assert [(home / name).read_bytes() for name in ("clip_00008.png", "clip_00008.mp4")] == [
        b"clip_00003.png",
        b"clip_00003.mp4",
    ]


async def test_texts_and_unknown_shapes(tmp_path: Path) -> None:
    """Files that texts name come along where there are such; the rest stays as it is."""
    ui = {
        "result": ["mesh_1.glb", None, "temp/bg_1.png"],
        "weird": {"a": [{"b": ref("deep.bin", f"{FOLDER}/s")}], "n": 1.5, "t": True},
        "path": ["temp/none.png", "temp/bg_1.png"],
        "text": ["temp/bg_1.png"],
    }
    files = {"output/mesh_1.glb": b"mesh", "temp/bg_1.png": b"back", f"output/{FOLDER}/s/deep.bin": b"deep"}
    r, shown = await conclude(tmp_path, ui, files)
    assert shown == {**ui, "weird": {**ui["weird"], "a": [{"b": ref("deep.bin", "s")}]}}  # type: ignore[dict-item]
    assert r.files() == ["output/mesh_1.glb", "output/s/deep.bin", "temp/bg_1.png"]


async def test_the_same_file_in_two_nodes(tmp_path: Path) -> None:
    """Is one file."""
    root = tmp_path / "backend"
    (root / "output" / FOLDER).mkdir(parents=True)
    (root / "output" / FOLDER / "a_00001_.png").write_bytes(b"x")
    ui = {"2": {"images": [ref("a_00001_.png", FOLDER)] * 2}, "3": {"images": [ref("a_00001_.png", FOLDER)]}}
    async with serving(FileBackend(root=root, ui=json.dumps(ui))) as backend, rig(tmp_path, backend.url) as r:
        _, document = await r.run(SAVE | {"3": SAVE["2"]})
        assert document.outputs == {"2": {"images": [ref("a_00001_.png")] * 2}, "3": {"images": [ref("a_00001_.png")]}}
        assert r.files() == ["output/a_00001_.png"]


# -- on the embedded engine ----------------------------------------------------------------------------------------


async def test_a_linked_prefix_lands_in_the_user_s_folder(tmp_path: Path, start: Start) -> None:
    """The node of ours that sees to it shows nowhere: not in events, not in the history, not in the picture."""
    engine = start()
    async with rig(tmp_path, engine.url) as r:
        prompt = saved() | {"5": node("PrimitiveString", value="made/by"), "6": node("PreviewAny", source=["5", 0])}
        prompt["2"]["inputs"]["filename_prefix"] = ["5", 0]
        job, document = await r.run(prompt, targets=["2", "6"])
        assert job.state is JobState.SUCCEEDED, document.messages
        assert document.outputs["2"] == {"images": [ref("by_00001_.png", "made")]}
        assert [path.parent.parent.name for path in engine.base_dir.glob("output/*/made/*.png")] == [FOLDER]
        told = json.dumps([data for kind, data in r.heard.of(job.prompt_id) if kind != "binary"])
        assert "cluster" not in told + json.dumps([document.outputs, document.meta, document.messages])
        with Image.open(r.dirs(1).output / "made/by_00001_.png") as made:
            assert json.loads(made.info["prompt"]) == prompt
        again, repeated = await r.run(prompt, targets=["2", "6"])
        cached = r.heard.first(again.prompt_id, "execution_cached")["nodes"]
        assert "2" in cached and set(cached) <= prompt.keys() and repeated.outputs == document.outputs


@pytest.mark.parametrize("kind", ["SaveAnimatedWEBP", "SaveAnimatedPNG"])
async def test_animations_carry_the_user_s_own_prompt(tmp_path: Path, urls: list[str], kind: str) -> None:
    """Not the rewritten one."""
    async with rig(tmp_path, urls[0]) as r:
        picture(r.dirs(1).input / "photo.png")
        prompt = loaded("photo.png")
        more = {"lossless": True, "quality": 80, "method": "default"} if kind == "SaveAnimatedWEBP" else {}
        more |= {"compress_level": 4} if kind == "SaveAnimatedPNG" else {}
        prompt["3"] = node(kind, images=["2", 0], filename_prefix="anim", fps=6.0, **more)
        job, document = await r.run(prompt, targets=["3"])
        assert job.state is JobState.SUCCEEDED, document.messages
        content = (r.dirs(1).output / document.outputs["3"]["images"][0]["filename"]).read_bytes()
        begin = content.index(b'{"1": ')
        assert json.JSONDecoder().raw_decode(content[begin:].decode("latin-1"))[0] == prompt
        assert b"cluster" not in content and document.outputs["3"]["animated"] == [False]


async def test_a_subfolder_of_the_day(tmp_path: Path, urls: list[str]) -> None:
    """Date tokens are the backend's to expand."""
    async with rig(tmp_path, urls[0]) as r:
        _, document = await r.run(saved(prefix="%year%/p_%width%"))
        (shown,) = document.outputs["2"]["images"]
        assert shown["subfolder"].isdigit() and shown["filename"] == "p_16_00001_.png"
        assert r.files() == [f"output/{shown['subfolder']}/p_16_00001_.png"]


@pytest.mark.parametrize("sweep", [True, False])
async def test_a_cached_rerun_after_a_restart_stores_nothing_twice(tmp_path: Path, start: Start, sweep: bool) -> None:
    """The backend's file, or the note in its place, says which of the user's files it is; others stay others."""
    engine = start()
    prompt = saved(batch_size=2)
    for run in range(2):
        root = tmp_path / f"proxy-{run}"
        root.mkdir()
        if run:
            (tmp_path / "proxy-0/users").rename(root / "users")
            for path in engine.base_dir.glob("output/*/*.png"):
                os.utime(path, (1e9, 1e9))  # made well before the job: HTTP dates have whole seconds
        async with rig(root, engine.url, sweep_backends=sweep) as r:
            job, document = await r.run(prompt)
            assert document.outputs == {"2": {"images": [ref("ComfyUI_00001_.png"), ref("ComfyUI_00002_.png")]}}
            assert [name for name in r.files() if "output" in name] == [
                "output/ComfyUI_00001_.png",
                "output/ComfyUI_00002_.png",
            ]
            cached = r.heard.first(job.prompt_id, "execution_cached")["nodes"]
            assert cached == (["1", "2"] if run else [])
            if sweep:
                await r.eventually(lambda: all(p.stat().st_size < 300 for p in engine.base_dir.glob("output/*/*.png")))


async def test_a_swept_file_that_the_user_deleted_is_made_again(tmp_path: Path, start: Start) -> None:
    """The backend's cache has only a note of it: the job runs once more, past the cache."""
    engine = start()
    async with rig(tmp_path, engine.url) as r:
        prompt = saved()
        await r.run(prompt)
        (left,) = engine.base_dir.glob("output/*/*.png")
        await r.eventually(lambda: moved_in(left.read_bytes()) is not None)
        mine = r.dirs(1).output / "ComfyUI_00001_.png"
        before = mine.read_bytes()
        mine.unlink()
        job, document = await r.run(prompt)
        assert job.state is JobState.SUCCEEDED and job.attempt == 2
        assert document.outputs["2"]["images"] == [ref("ComfyUI_00001_.png")] and mine.read_bytes() == before
        assert r.pool.members[1].failed == 0


async def test_a_cached_file_that_an_operator_deleted_is_made_again(tmp_path: Path, start: Start) -> None:
    """After a restart of this proxy nobody knows where its first copy went."""
    engine = start()
    prompt = saved()
    for run in range(2):
        root = tmp_path / f"proxy-{run}"
        root.mkdir()
        async with rig(root, engine.url, sweep_backends=False) as r:
            job, _ = await r.run(prompt)
            assert job.state is JobState.SUCCEEDED and job.attempt == 1 + run
            assert r.files() == ["output/ComfyUI_00001_.png"]
        for path in engine.base_dir.glob("output/*/*.png"):
            path.unlink()


async def test_what_is_left_at_a_backend_is_told(tmp_path: Path, start: Start) -> None:
    """An estimate that agrees with its disk: inputs, notes, previews."""
    engine = start()
    async with rig(tmp_path, engine.url) as r:
        picture(r.dirs(1).input / "photo.png")
        remains = r.pool.members[1].client.remains
        await r.run(loaded("photo.png"))
        await r.eventually(lambda: (remains.inputs, remains.notes, remains.whole) == (1, 1, 0))
        (sent,) = engine.base_dir.glob("input/*/*.png")
        assert remains.input_bytes == sent.stat().st_size and remains.whole_bytes == 0
        await r.run(previewed())
        (shown,) = engine.base_dir.glob("temp/*.png")
        await r.eventually(lambda: remains.whole == 1)
        assert remains.files == 3 and remains.size == sent.stat().st_size + 4096 + remains.whole_bytes
        assert 0 < remains.whole_bytes <= shown.stat().st_size


async def test_nothing_is_swept_where_the_operator_says_so(tmp_path: Path, start: Start) -> None:
    """`sweep_backends` no: a backend keeps every file whole."""
    engine = start()
    async with rig(tmp_path, engine.url, sweep_backends=False) as r:
        await r.run(saved())
        await r.eventually(lambda: r.pool.members[1].client.remains.whole == 1)
        await r.run(saved())  # by its end the first would have been swept
        made = list(engine.base_dir.glob("output/**/*.png"))
        assert made
        for path in made:
            with Image.open(path) as whole:
                whole.load()
