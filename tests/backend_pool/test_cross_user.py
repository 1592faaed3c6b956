"""One user's pictures in another's hands: each way that was found, tried on real backends."""

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from backend_pool.comfy.client import FileRef
from backend_pool.files.known_files import Home, KnownFiles
from backend_pool.files.references import references
from backend_pool.files.staging import Unstageable, stage, unwrapped
from backend_pool.files.user_folder import scrubbed, user_folder
from backend_pool.job_state import JobState
from backend_pool.offers.pool_info import PoolInfo
from tests.backend_pool.graphs import loaded, previewed
from tests.backend_pool.infos import info, providers
from tests.backend_pool.rig import Rig, rig, user_dirs
from tests.backend_pool.test_real_backend import SLOW
from tests.backend_pool.test_rewriting import SALT, TAG
from tests.backend_pool.test_way import picture
from tests.engine.graphs import node
from tests.real_comfyui import start_real_comfyui

BOBS = "#0b1621"
FOREIGN = user_folder("f" * 20)


def wrapped(value: object, times: int = 1) -> Any:
    """The value as ComfyUI unwraps it, `times` deep."""
    return value if times == 0 else {"__value__": wrapped(value, times - 1)}


@pytest.mark.parametrize(
    "entry",
    [
        node("LoadImage", image=wrapped("hers.png [temp]")),
        node("LoadImage", image=wrapped("hers.png [temp]", 3)),
        node("LoadImage", image="gone.png"),
        node("LoadImage", image="gone.png [temp]"),
        node("LoadImage", image=["9", 0]),
        node("LoadImage", image=wrapped(["a.png"])),
        node("LoadImage", image={"name": "a.png"}),
        node("LoadImage", image=7),
        node("Save", filename_prefix=wrapped("../x")),
        node("Save", filename_prefix=wrapped(["x", 0])),
        node("Save", filename_prefix=4),
        node("Odd", x=f"{FOREIGN}/a.png"),
        node("Odd", x={"deep": [f"{FOREIGN}/a.png [input]"]}),
        node("Odd", x=wrapped(FOREIGN)),
    ],
)
def test_what_cannot_be_checked_is_not_sent(tmp_path: Path, entry: Any) -> None:
    """Whatever form the backend would read it in."""
    with pytest.raises(Unstageable) as caught:
        stage({"1": entry, "9": node("Show", a=["1", 0])}, info("a"), user_dirs(tmp_path, 1), TAG, SALT)
    assert caught.value.node_id == "1" and FOREIGN not in str(caught.value)


def test_wrapped_values_are_staged_like_bare_ones(tmp_path: Path) -> None:
    """A wrapped list stays one: bare it would be a link."""
    dirs = user_dirs(tmp_path, 1)
    (dirs.input / "a.png").write_bytes(b"x")
    prompt = {
        "1": node("LoadImage", image=wrapped("a.png", 2)),
        "2": node("Save", filename_prefix=wrapped("p")),
        "3": node("Odd", n=wrapped([1, 2])),
    }
    staged = stage(prompt, info("a"), dirs, TAG, SALT)
    assert staged.prompt["1"]["inputs"]["image"] == f"{user_folder(TAG)}/{next(iter(staged.files))}"
    assert staged.prompt["2"]["inputs"]["filename_prefix"] == f"{user_folder(TAG)}/p"
    assert staged.prompt["3"]["inputs"]["n"] == {"__value__": [1, 2]}
    assert unwrapped({"a": 1}) == {"a": 1}


def test_folders_of_users_are_neither_listed_nor_told() -> None:
    """Some core nodes list every folder of a backend's input directory; errors repeat the list."""
    listing = info(
        "a", Folder={"input": {"required": {"folder": ["COMBO", {"options": ["3d", FOREIGN, f"{FOREIGN}/x"]}]}}}
    )
    union = PoolInfo(providers(listing)).union
    assert union["Folder"]["input"]["required"]["folder"][1]["options"] == ["3d"]
    assert "Folder" not in PoolInfo(providers(listing), denied=["Folder"]).union
    assert scrubbed(f"not in ['3d', '{FOREIGN}']") == "not in ['3d', 'cluster']"


def test_what_a_node_tells_back_is_no_file() -> None:
    """Preview3D repeats its inputs under `result`."""
    camera = {"filename": "x.png", "subfolder": "", "type": "temp"}
    assert list(references({"result": ["model.glb", camera], "images": [camera]})) == [FileRef("x.png", "", "temp")]
    assert list(references({"result": ["model.glb", camera]})) == []


def test_a_version_that_came_home_to_another_is_known() -> None:
    """The same name with another version is another file: backends count from one again after a restart."""
    known, ref = KnownFiles(), FileRef("p_00001_.png", "", "temp")
    assert not known.of_another(1, 2, ref, "v1")
    known.put(1, 1, ref, Home(ref, "v1", None))
    assert known.of_another(1, 2, ref, "v1") and not known.of_another(1, 2, ref, "v2")
    assert not known.of_another(1, 1, ref, "v1") and not known.of_another(2, 2, ref, "v1")


async def hers(r: Rig) -> str:
    """Another user's preview at the backend; its name there."""
    await r.run({"1": node("EmptyImage", width=16, height=16, batch_size=1, color=int(BOBS[1:], 16)), "9": PREVIEW}, 2)
    _, document = await r.run({**previewed(), "9": PREVIEW}, 1)
    return str(document.outputs["9"]["images"][0]["filename"])


PREVIEW = node("PreviewImage", images=["1", 0])


@pytest.mark.parametrize("times", [0, 1, 2])
async def test_a_guessed_preview_is_not_loaded(tmp_path: Path, urls: list[str], times: int) -> None:
    """A preview's name can be guessed from one's own; a dummy of that name makes it look like one's own file."""
    async with rig(tmp_path, urls[0]) as r:
        guess = await hers(r)
        for number in range(1, 6):
            name = f"{guess.rsplit('_', 2)[0]}_{number:05}_.png"
            picture(r.dirs(1).temp / name, "white")
            job, document = await r.run(loaded(wrapped(f"{name} [temp]", times)))
            assert job.state is JobState.SUCCEEDED, document.messages
            with Image.open(r.dirs(1).output / document.outputs["3"]["images"][0]["filename"]) as made:
                assert made.convert("RGB").getpixel((0, 0)) == (0, 0, 0)  # the dummy, inverted


@pytest.mark.comfyui
async def test_a_node_that_repeats_its_input_fetches_nothing(tmp_path: Path, tmp_path_factory: Any) -> None:
    """Preview3D of a real ComfyUI echoes `camera_info`; the file it names stays where it is."""
    server = start_real_comfyui(tmp_path_factory.mktemp("comfyui"))
    try:
        async with rig(tmp_path, server.url, **SLOW) as r:
            guess = await hers(r)
            before = r.files(1)
            for number in range(1, 4):
                name = f"{guess.rsplit('_', 2)[0]}_{number:05}_.png"
                camera = {"filename": name, "subfolder": "", "type": "temp"}
                job, document = await r.run({"1": node("Preview3D", model_file="x.glb", camera_info=camera)})
                assert job.state is JobState.SUCCEEDED and camera in document.outputs["1"]["result"]
            assert r.files(1) == before
            assert "LoadImageDataSetFromFolder" not in r.pool.info.union
    finally:
        server.stop()
