"""Every way in which a prompt may name a file of its user, and what a stock backend gets instead."""

import json
from pathlib import Path
from typing import Any

import pytest

from backend_pool.comfy.client import FileRef
from backend_pool.files.staging import JOINER, PADDING, SALT_INPUT, Unstageable, missing_files, stage
from backend_pool.files.user_files import UserDirs, listing
from tests.backend_pool.infos import info
from tests.backend_pool.rig import user_dirs
from tests.engine.graphs import node

TAG = "0123456789abcdef0123"
FOLDER = f"cluster-{TAG}"
SALT = "salt"
ODD_NAMES = [
    "two words.png",
    "100%.png",
    "no#1.png",
    "[a] b [c].png",
    "x [inputs].png",
    "пикча 日本.png",
    "a'b\"c.png",
    "no_suffix",
    "dots.in.name.PNG",
    "l" * 240 + ".png",
    "back\\slash.png",
]


def required(**specs: Any) -> dict[str, Any]:
    """A node class with these inputs."""
    return {"input": {"required": specs}, "output": ["*"]}


INFO = info(
    "a",
    Webcam=required(image=["WEBCAM", {}]),
    Recorder=required(audio=["AUDIO_RECORD", {}]),
    Load3D=required(model_file=["COMBO", {"file_upload": True, "options": []}], image=["LOAD_3D", {}]),
    LoadLatent=required(latent=[[]]),
    Many=required(files=["COMBO", {"image_upload": True, "multiselect": True, "options": []}]),
    Widget=required(state=["MY_WIDGET", {}]),
    Text=required(text=["STRING", {}], number=["INT", {}]),
    Choice=required(choice=["COMBO", {"options": ["a.png"]}]),
    **{JOINER: required(string_a=["STRING", {}], string_b=["STRING", {}], delimiter=["STRING", {}])},
)


@pytest.fixture
def dirs(tmp_path: Path) -> UserDirs:
    """Directories with a file in each."""
    made = user_dirs(tmp_path, 1)
    for path in (
        made.input / "a.png",
        made.input / "b.PNG",
        made.input / "clipspace/painted-masked-1.png",
        made.input / "3d/deep/mesh.GLB",
        made.input / "3d/notes.txt",
        made.input / "noise.latent",
        made.output / "made.png",
        made.temp / "threed/scene.png",
        made.temp / "threed/mask.png",
        made.temp / "threed/normal.png",
        made.temp / "audio/voice.wav",
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(str(path.name).encode())
    return made


def sent(dirs: UserDirs, **inputs: Any) -> tuple[dict[str, Any], dict[str, Path]]:
    """What becomes of one node's inputs, and the files that go along; `kind` is its class."""
    kind = inputs.pop("kind")
    staged = stage({"1": node(kind, **inputs), "9": node("Show", images=["1", 0])}, INFO, dirs, TAG, SALT)
    by_value = {f"{staged.subfolder(name)}/{name}": path for name, path in staged.files.items()}
    for value, path in by_value.items():
        assert staged.own[value.rpartition("/")[2]].filename == path.name
    return staged.prompt["1"]["inputs"], by_value


@pytest.mark.parametrize(
    ("kind", "key", "value", "path"),
    [
        ("LoadImage", "image", "a.png", "input/a.png"),
        ("LoadImage", "image", "a.png [input]", "input/a.png"),
        ("LoadImage", "image", "made.png [output]", "output/made.png"),
        ("LoadImage", "image", "threed/scene.png [temp]", "temp/threed/scene.png"),
        ("LoadImage", "image", "clipspace/painted-masked-1.png [input]", "input/clipspace/painted-masked-1.png"),
        ("LoadOut", "image", "made.png [output]", "output/made.png"),
        ("LoadLatent", "latent", "noise.latent", "input/noise.latent"),
        ("Webcam", "image", "threed/scene.png [temp]", "temp/threed/scene.png"),
        ("Recorder", "audio", "audio/voice.wav [temp]", "temp/audio/voice.wav"),
        ("Choice", "choice", "made.png [output]", "output/made.png"),
        ("Load3D", "model_file", "3d/deep/mesh.GLB", "input/3d/deep/mesh.GLB"),
    ],
)
def test_a_named_file_goes_along(dirs: UserDirs, tmp_path: Path, kind: str, key: str, value: str, path: str) -> None:
    """And the node names it as the backend will."""
    inputs, files = sent(dirs, kind=kind, **{key: value})
    assert files == {inputs[key]: (tmp_path / "users/1" / path).resolve()}
    folder = f"3d/{FOLDER}" if kind == "Load3D" else FOLDER
    assert inputs[key].startswith(f"{folder}/") and inputs[key].endswith(Path(path).suffix.lower())


def test_a_list_of_names(dirs: UserDirs) -> None:
    """Each of them, in its place; it stays wrapped, for bare it would be a link."""
    inputs, files = sent(dirs, kind="Many", files={"__value__": ["a.png", "b.PNG", "made.png [output]"]})
    names = inputs["files"]["__value__"]
    assert len(names) == 3 and [files[name].name for name in names] == ["a.png", "b.PNG", "made.png"]


def test_a_scene_of_load_3d(dirs: UserDirs) -> None:
    """Its pictures; the camera and an empty recording are left alone."""
    camera = {"position": {"x": 1.5}, "cameraType": "perspective", "zoom": 1}
    scene = {
        "image": "threed/scene.png [temp]",
        "mask": "threed/mask.png [temp]",
        "normal": "threed/normal.png [temp]",
        "recording": "",
        "camera_info": camera,
    }
    inputs, files = sent(dirs, kind="Load3D", model_file="none", image=scene)
    assert sorted(path.name for path in files.values()) == ["mask.png", "normal.png", "scene.png"]
    assert inputs["image"] | {"image": 0, "mask": 0, "normal": 0} == scene | {"image": 0, "mask": 0, "normal": 0}
    assert files[inputs["image"]["mask"]].name == "mask.png"


def test_a_widget_of_a_custom_node(dirs: UserDirs) -> None:
    """At whatever depth, when it says so or there is such a file; other texts and values stay."""
    state = {"files": ["a.png", "made.png [output]", "gone.png"], "on": True, "n": None, "x": 1.5, "t": "v1.2"}
    inputs, files = sent(dirs, kind="Widget", state=state)
    assert [path.name for path in files.values()] == ["a.png", "made.png"]
    assert inputs["state"] == {**state, "files": [*files, "gone.png"]}


@pytest.mark.parametrize("text", ["a.png", "a.png [input]", "/etc/passwd", "../x [output]", "see a.png"])
def test_free_text_is_never_looked_into(dirs: UserDirs, text: str) -> None:
    """What a node does with a text is not known; the backend reads it as it is."""
    inputs, files = sent(dirs, kind="Text", text=text, number=3)
    assert inputs == {"text": text, "number": 3} and files == {}


def test_a_listed_choice_is_the_backend_s(dirs: UserDirs) -> None:
    """Also where the user has a file of that name."""
    assert sent(dirs, kind="Choice", choice="a.png") == ({"choice": "a.png"}, {})


@pytest.mark.parametrize(
    ("kind", "key", "value"),
    [
        ("Webcam", "image", "hers.png [temp]"),
        ("Webcam", "image", "/etc/passwd"),
        ("Webcam", "image", {"x": 1}),
        ("Recorder", "audio", "../hers.wav"),
        ("Recorder", "audio", ["7", 0]),
        ("Many", "files", {"__value__": ["a.png", "hers.png [temp]"]}),
        ("Many", "files", {"__value__": ["a.png", 7]}),
        ("Choice", "choice", "hers.png [temp]"),
        ("Choice", "choice", "../../hers.png"),
        ("LoadLatent", "latent", "/etc/passwd"),
        ("Load3D", "image", {"image": "hers.png [temp]", "mask": ""}),
        ("Load3D", "image", {"image": 3}),
        ("Load3D", "image", {"lineart": "/etc/passwd"}),
        ("Widget", "state", {"deep": ["hers.png [output]"]}),
        ("Text", "undeclared", "hers.png [temp]"),
    ],
)
def test_a_name_that_is_not_the_user_s_file_is_not_sent(dirs: UserDirs, kind: str, key: str, value: Any) -> None:
    """A stock backend would look for it in directories that all users share."""
    with pytest.raises(Unstageable):
        sent(dirs, kind=kind, **{key: value})


@pytest.mark.parametrize("name", ODD_NAMES)
def test_any_name_of_a_file(tmp_path: Path, name: str) -> None:
    """It travels by its content; the user's name comes back in what the backend says."""
    dirs = user_dirs(tmp_path, 1)
    (dirs.input / name).write_bytes(b"x")
    staged = stage({"1": node("LoadImage", image=name)}, INFO, dirs, TAG, SALT)
    ours = staged.prompt["1"]["inputs"]["image"]
    assert ours.isascii() and len(ours) < 100
    assert json.loads(staged.restore(json.dumps({"m": f"bad: {ours}"}))) == {"m": f"bad: {name}"}
    assert staged.own[ours.rpartition("/")[2]] == FileRef(name, "", "input") or "\\" in name


def test_a_file_is_read_when_the_job_runs(dirs: UserDirs) -> None:
    """Not when it was queued: another content is another name."""
    before, _ = sent(dirs, kind="LoadImage", image="a.png")
    (dirs.input / "a.png").write_bytes(b"changed")
    after, _ = sent(dirs, kind="LoadImage", image="a.png")
    assert before != after


def test_missing_files_are_named_at_once(dirs: UserDirs) -> None:
    """All of them, before anything is read and again when the job runs."""
    prompt = {
        "1": node("LoadImage", image="gone1.png"),
        "2": node("Load3D", model_file="3d/gone.glb", image={"image": "gone2.png [temp]"}),
        "3": node("LoadImage", image="a.png"),
        "4": node("Text", text="gone3.png"),
        "5": node("LoadImage", image="gone1.png"),
        "6": {"class_type": "Text"},
        "7": node("LoadImage", image="gone4.png"),
        "9": node("Show", images=["1", 0], a=["2", 0], b=["3", 0], c=["4", 0], d=["5", 0], e=["6", 0]),
    }
    gone = [("1", "gone1.png"), ("2", "3d/gone.glb"), ("2", "gone2.png [temp]"), ("5", "gone1.png")]
    assert [(node_id, named.text) for node_id, named in missing_files(prompt, INFO, dirs)] == gone
    with pytest.raises(Unstageable, match=r"3 files are gone.*gone1.png, 3d/gone.glb, gone2.png") as caught:
        stage(prompt, INFO, dirs, TAG, SALT)
    assert caught.value.node_id == "1"


def test_a_file_that_nobody_wants_may_be_gone(dirs: UserDirs) -> None:
    """A node on no way to an output: ComfyUI does not look at it, and no backend gets to know the name."""
    prompt = {"1": node("LoadImage", image="hers.png [temp]"), "9": node("Show")}
    staged = stage(prompt, INFO, dirs, TAG, SALT)
    ours = staged.prompt["1"]["inputs"]["image"]
    assert ours.startswith(f"{FOLDER}/") and staged.files == {} and missing_files(prompt, INFO, dirs) == []
    assert json.loads(staged.restore(json.dumps(ours))) == "hers.png [temp]"


def test_a_file_that_no_target_wants_may_be_gone(dirs: UserDirs) -> None:
    """Of a prompt of which ComfyUI accepts a part."""
    prompt = {
        "1": node("LoadImage", image="gone.png"),
        "2": node("LoadImage", image="a.png"),
        "8": node("Show", images=["1", 0]),
        "9": node("Show", images=["2", 0]),
    }
    assert len(stage(prompt, INFO, dirs, TAG, SALT, targets=["9"]).files) == 1
    with pytest.raises(Unstageable):
        stage(prompt, INFO, dirs, TAG, SALT)
    assert [named.key for _, named in missing_files(prompt, INFO, dirs, ["8"])] == ["image"]


def test_a_linked_prefix_is_joined_to_the_user_s_folder(dirs: UserDirs) -> None:
    """By a node of ours, where the backend has the class for it."""
    prompt = {"9": node("Save", filename_prefix=["4", 1]), "4": node("Text", text="x", number=1)}
    staged = stage(prompt, INFO, dirs, TAG, SALT)
    (ours,) = staged.hidden
    assert staged.prompt["9"]["inputs"] == {"filename_prefix": [ours, 0]}
    assert staged.prompt[ours] == node(JOINER, string_a=f"{FOLDER}/", string_b=["4", 1], delimiter="")
    without = stage(prompt, info("a"), dirs, TAG, SALT)
    assert without.prompt["9"]["inputs"] == {"filename_prefix": ["4", 1], SALT_INPUT: SALT} and not without.hidden


def test_another_attempt_gets_nothing_out_of_a_cache(dirs: UserDirs) -> None:
    """Each output node has a salt then, also one with a prefix."""
    staged = stage({"1": node("Save", filename_prefix="a")}, INFO, dirs, TAG, SALT, again="second")
    assert staged.prompt["1"]["inputs"] == {"filename_prefix": f"{FOLDER}/a", SALT_INPUT: "second"}


def test_our_prompt_is_never_shorter_than_the_user_s(tmp_path: Path) -> None:
    """Else theirs would not fit into the files that backends write ours into."""
    dirs, name = user_dirs(tmp_path, 1), "日" * 80 + ".png"
    (dirs.input / name).write_bytes(b"x")
    prompt = {"1": {**node("LoadImage", image=name), "_meta": {"title": "t"}}}
    staged = stage(prompt, INFO, dirs, TAG, SALT)
    for whole in (json.dumps, lambda value: json.dumps(json.dumps(value))):
        assert len(whole(staged.prompt)) >= len(whole(prompt))
    assert staged.prompt["1"]["_meta"]["title"] == "t" and PADDING not in prompt["1"]["_meta"]


def test_scenes_are_listed_below_their_folder(dirs: UserDirs) -> None:
    """As Load3D lists them; other files there are none."""
    assert listing(dirs, "input", "model/") == ["3d/deep/mesh.GLB"]
