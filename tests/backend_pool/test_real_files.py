"""Files of every kind through a real ComfyUI as a stock backend, where one is configured."""

import json
import shutil
import struct
import wave
from collections.abc import Iterator
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from backend_pool.files.moved_note import moved_in
from backend_pool.files.user_folder import user_folder
from backend_pool.job_state import JobState
from tests.backend_pool.graphs import loaded, saved
from tests.backend_pool.rig import Rig, rig
from tests.backend_pool.test_file_inputs import ODD_NAMES
from tests.backend_pool.test_real_backend import SLOW
from tests.backend_pool.test_way import picture
from tests.engine.graphs import Graph, node
from tests.real_comfyui import RealComfyUI, start_real_comfyui

pytestmark = pytest.mark.comfyui
NODES = Path(__file__).parents[1] / "custom_nodes" / "telling_files"
FOLDER = user_folder(f"{1:020x}")
PICTURES = {"1": node("EmptyImage", width=64, height=64, batch_size=4, color=255)}


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealComfyUI]:
    """A real ComfyUI with the nodes of tests/custom_nodes/telling_files."""
    base = tmp_path_factory.mktemp("comfyui")
    shutil.copytree(NODES, base / "custom_nodes" / NODES.name)
    server = start_real_comfyui(base)
    yield server
    server.stop()


async def done(r: Rig, prompt: Graph, *targets: str) -> dict[str, Any]:
    """The outputs of a job that has to succeed."""
    job, document = await r.run(prompt, targets=list(targets))
    assert job.state is JobState.SUCCEEDED, document.messages
    told = json.dumps([data for kind, data in r.heard.of(job.prompt_id) if kind != "binary"])
    assert FOLDER not in told + json.dumps([document.outputs, document.messages])
    return document.outputs


def embedded(path: Path) -> Any:
    """The first prompt in a file, whatever its format."""
    content = path.read_bytes()
    assert b"cluster" not in content
    begin = content.index(b'{"1": ')
    return json.JSONDecoder().raw_decode(content[begin:].decode("latin-1"))[0]


@pytest.mark.parametrize("name", ODD_NAMES)
async def test_pictures_of_any_name(tmp_path: Path, real: RealComfyUI, name: str) -> None:
    """Loaded, and their name restored in the picture that comes of it."""
    async with rig(tmp_path, real.url, **SLOW) as r:
        picture(tmp_path / "x.png", "blue")
        (r.dirs(1).input / name).write_bytes((tmp_path / "x.png").read_bytes())
        outputs = await done(r, loaded(name), "3")
        with Image.open(r.dirs(1).output / outputs["3"]["images"][0]["filename"]) as made:
            assert made.convert("RGB").getpixel((0, 0)) == (255, 255, 0)
            assert json.loads(made.info["prompt"]) == loaded(name)


@pytest.mark.parametrize("kind", ["LoadImage", "LoadImageMask", "LoadImageOutput", "WebcamCapture"])
async def test_masks_clipspace_outputs_and_webcams(tmp_path: Path, real: RealComfyUI, kind: str) -> None:
    """From input, output and temp, in subfolders."""
    folders = {"LoadImageOutput": "output", "WebcamCapture": "temp"}
    name, folder = "clipspace/clipspace-painted-masked-1.png", folders.get(kind, "input")
    async with rig(tmp_path, real.url, **SLOW) as r:
        picture(r.dirs(1).root(folder) / name, "blue")
        more: dict[str, Any] = {"channel": "blue"} if kind == "LoadImageMask" else {}
        more |= {"width": 0, "height": 0, "capture_on_queue": True} if kind == "WebcamCapture" else {}
        prompt = {"1": node(kind, image=f"{name} [{folder}]", **more)}
        source = ["1", 0]
        if kind == "LoadImageMask":
            prompt["4"], source = node("MaskToImage", mask=["1", 0]), ["4", 0]
        prompt["3"] = node("SaveImage", images=source, filename_prefix="copy")
        outputs = await done(r, prompt, "3")
        with Image.open(r.dirs(1).output / outputs["3"]["images"][0]["filename"]) as made:
            blue = made.convert("RGB").getpixel((0, 0))
        assert blue == ((255, 255, 255) if kind == "LoadImageMask" else (0, 0, 255))


async def test_another_s_file_is_not_reached(tmp_path: Path, real: RealComfyUI) -> None:
    """Through inputs that stock ComfyUI does not check."""
    (real.base_dir / "temp").mkdir(exist_ok=True)
    for place in ("temp/hers.png", "input/hers.png"):
        picture(real.base_dir / place)
    async with rig(tmp_path, real.url, **SLOW) as r:
        (r.dirs(1).input / "3d").mkdir()
        (r.dirs(1).input / "3d/mesh.glb").write_bytes(b"glTF")
        for name in ("hers.png [temp]", "hers.png", f"{real.base_dir}/input/hers.png", "../temp/hers.png"):
            more: Graph = {"2": node("SaveImage", images=["1", 0], filename_prefix="x")}
            camera = node("WebcamCapture", image=name, width=0, height=0, capture_on_queue=True)
            scene = {"image": name, "mask": name, "normal": name, "recording": "", "camera_info": {}}
            for entry in (camera, node("Load3D", model_file="3d/mesh.glb", image=scene, width=8, height=8)):
                job, document = await r.run(more | {"1": entry})
                assert job.state is JobState.FAILED and "is gone" in document.messages[-1][1]["exception_message"]
        assert r.files() == []


async def test_a_scene(tmp_path: Path, real: RealComfyUI) -> None:
    """Load3D's model and its pictures, Preview3D's background, which a text names."""
    async with rig(tmp_path, real.url, **SLOW) as r:
        dirs = r.dirs(1)
        (dirs.input / "3d").mkdir()
        (dirs.input / "3d/mesh.glb").write_bytes(b"glTF")
        parts = ("image", "mask", "normal", "lineart")  # the last one in older versions
        names = {part: f"threed/{part}.png [temp]" for part in parts}
        for part, color in zip(parts, ("red", "lime", "blue", "white"), strict=True):
            picture(dirs.temp / f"threed/{part}.png", color)
        camera = {"position": {"x": 1, "y": 2, "z": 3}, "cameraType": "perspective"}
        scene = {**names, "recording": "", "camera_info": camera}
        info = r.pool.info.union
        shown = {"model_file": ["1", 2], "camera_info": ["1", info["Load3D"]["output"].index("LOAD3D_CAMERA")]}
        if "bg_image" in info["Preview3D"]["input"]["optional"]:  # not in older versions
            shown["bg_image"] = ["1", 3]
        prompt = {
            "1": node("Load3D", model_file="3d/mesh.glb", image=scene, width=16, height=16),
            "2": node("SaveImage", images=["1", 0], filename_prefix="shot"),
            "3": node("Preview3D", **shown),
        }
        outputs = await done(r, prompt, "2", "3")
        model, told, *backs = outputs["3"]["result"]
        assert model == "3d/mesh.glb" and told == camera and len(backs) == len(shown) - 2
        if not backs:
            return
        folder, name = backs[0].split("/")
        assert folder == "temp"
        with Image.open(dirs.temp / name) as made:
            assert made.convert("RGB").getpixel((0, 0)) == (0, 0, 255)


async def test_sound(tmp_path: Path, real: RealComfyUI) -> None:
    """Loaded from a recording in temp, saved as FLAC, MP3 and Opus with the user's own prompt inside."""
    async with rig(tmp_path, real.url, **SLOW) as r:
        made = r.dirs(1).temp / "audio/voice.wav"
        made.parent.mkdir()
        with wave.open(str(made), "wb") as sound:
            sound.setparams((1, 2, 48_000, 0, "NONE", ""))
            sound.writeframes(struct.pack("<h", 1000) * 9600)
        prompt = {
            "1": node("LoadAudio", audio="audio/voice.wav [temp]"),
            "2": node("SaveAudio", audio=["1", 0], filename_prefix="audio/a"),
            "3": node("SaveAudioMP3", audio=["1", 0], filename_prefix="audio/a", quality="128k"),
            "4": node("SaveAudioOpus", audio=["1", 0], filename_prefix="audio/a", quality="64k"),
            "5": node("PreviewAudio", audio=["1", 0]),
        }
        outputs = await done(r, prompt, "2", "3", "4", "5")
        for key, suffix in (("2", "flac"), ("3", "mp3"), ("4", "opus")):
            (shown,) = outputs[key]["audio"]
            assert shown["subfolder"] == "audio" and shown["filename"].endswith(suffix)
            assert embedded(r.dirs(1).output / "audio" / shown["filename"]) == prompt
        assert (r.dirs(1).temp / outputs["5"]["audio"][0]["filename"]).is_file()


async def test_films(tmp_path: Path, real: RealComfyUI) -> None:
    """MP4, WebM, animated WebP and PNG, and a film loaded again; all still play."""
    async with rig(tmp_path, real.url, **SLOW) as r:
        prompt = PICTURES | {
            "2": node("CreateVideo", images=["1", 0], fps=8),
            "3": node("SaveVideo", video=["2", 0], filename_prefix="video/v", format="mp4", codec="h264"),
            "4": node("SaveWEBM", images=["1", 0], filename_prefix="w", codec="vp9", fps=8.0, crf=32.0),
            "5": node(
                "SaveAnimatedWEBP",
                images=["1", 0],
                filename_prefix="a",
                fps=8.0,
                lossless=True,
                quality=80,
                method="fastest",
            ),
            "6": node("SaveAnimatedPNG", images=["1", 0], filename_prefix="p", fps=8.0, compress_level=4),
        }
        outputs = await done(r, prompt, "3", "4", "5", "6")
        home = r.dirs(1).output
        for key in ("3", "4", "5", "6"):
            (shown,) = outputs[key]["images"]
            assert outputs[key]["animated"] == [True]
            assert embedded(home / shown["subfolder"] / shown["filename"]) == prompt
        for number, name in enumerate(("video/v_00001_.mp4", "w_00001_.webm")):
            again = {
                "1": node("LoadVideo", file=f"{name} [output]"),
                "2": node("GetVideoComponents", video=["1", 0]),
                "3": node("SaveImage", images=["2", 0], filename_prefix=f"frame{number}"),
            }
            frames = await done(r, again, "3")
            assert len(frames["3"]["images"]) == 4


async def test_latents(tmp_path: Path, real: RealComfyUI) -> None:
    """Saved with the user's own prompt, and loaded: the backend does not list the user's."""
    async with rig(tmp_path, real.url, **SLOW) as r:
        prompt = {
            "1": node("EmptyLatentImage", width=64, height=64, batch_size=1),
            "2": node("SaveLatent", samples=["1", 0], filename_prefix="latents/l"),
        }
        outputs = await done(r, prompt, "2")
        (shown,) = outputs["2"]["latents"]
        made = r.dirs(1).output / shown["subfolder"] / shown["filename"]
        content = made.read_bytes()
        header = json.loads(content[8 : 8 + struct.unpack_from("<Q", content)[0]])
        assert json.loads(header["__metadata__"]["prompt"]) == prompt and b"cluster" not in content
        shutil.copy(made, r.dirs(1).input / "mine.latent")
        again = {
            "1": node("LoadLatent", latent="mine.latent"),
            "2": node("SaveLatent", samples=["1", 0], filename_prefix="again"),
        }
        assert (await done(r, again, "2"))["2"]["latents"][0]["filename"] == "again_00001_.latent"


async def test_the_ways_of_well_known_packs(tmp_path: Path, real: RealComfyUI) -> None:
    """`gifs` with a sidecar, texts that name files, lists and widgets that take some."""
    async with rig(tmp_path, real.url, **SLOW) as r:
        dirs = r.dirs(1)
        (dirs.input / "one.png").write_bytes(b"1")
        (dirs.output / "two.png").write_bytes(b"22")
        files = {"__value__": ["one.png", "two.png [output]"]}
        prompt = {
            "1": node("TellClip", filename_prefix="clips/c"),
            "2": node("TellText", name="named"),
            "3": node("TakeMany", files=files, state={"files": ["one.png"], "zoom": 1.5, "open": None}),
        }
        outputs = await done(r, prompt, "1", "2", "3")
        (gif,) = outputs["1"]["gifs"]
        assert (gif["filename"], gif["workflow"], gif["subfolder"]) == ("c_00001.mp4", "c_00001.png", "clips")
        assert outputs["1"]["flags"] == [True, None, 1.5]
        assert (dirs.output / "clips/c_00001.png").read_text() == "picture"
        inner = json.loads(json.loads((dirs.output / "clips/c_00001.mp4").read_text())["comment"])
        assert inner["1"] == prompt["1"] and "cluster" not in json.dumps(inner)
        assert outputs["2"] == {"result": ["named.glb", None, "temp/named.png"], "text": ["temp/named.png"]}
        assert (dirs.output / "named.glb").read_text() == "glb" and (dirs.temp / "named.png").read_text() == "png"
        assert outputs["3"] == {"sizes": [1, 2, 1]}


async def test_linked_and_dated_prefixes(tmp_path: Path, real: RealComfyUI) -> None:
    """In the user's folder, in the subfolder of the day."""
    async with rig(tmp_path, real.url, **SLOW) as r:
        prompt = saved(prefix="") | {"3": node("PrimitiveString", value="%year%/deep/l")}
        prompt["2"]["inputs"]["filename_prefix"] = ["3", 0]
        (shown,) = (await done(r, prompt, "2"))["2"]["images"]
        year, deep = shown["subfolder"].split("/")
        assert year.isdigit() and deep == "deep" and shown["filename"] == "l_00001_.png"
        assert [path.name for path in (real.base_dir / "output" / FOLDER / year / "deep").iterdir()] == ["l_00001_.png"]
        assert embedded(r.dirs(1).output / shown["subfolder"] / shown["filename"]) == prompt


def is_note(path: Path) -> bool:
    """Whether a file at the backend says where it is."""
    return moved_in(path.read_bytes()) is not None


async def test_leftovers_are_notes(tmp_path: Path, real: RealComfyUI) -> None:
    """What stays in the output directory says where the file is; a cached rerun of another process finds it."""
    prompt = saved(prefix="left/over", width=512, height=512)
    for run in range(2):
        root = tmp_path / f"proxy-{run}"
        root.mkdir()
        if run:
            (tmp_path / "proxy-0/users").rename(root / "users")
        async with rig(root, real.url, **SLOW) as r:
            outputs = await done(r, prompt, "2")
            assert outputs["2"]["images"][0]["filename"] == "over_00001_.png"
            assert r.files() == ["output/left/over_00001_.png"]
            left = next((real.base_dir / "output" / FOLDER).glob("left/*.png"))
            await r.eventually(partial(is_note, left))
            with Image.open(BytesIO((r.dirs(1).output / "left/over_00001_.png").read_bytes())) as made:
                made.load()
