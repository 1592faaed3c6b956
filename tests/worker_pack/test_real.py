"""The pack inside a real ComfyUI, for each of its caches; 0.3.64 too where COMFYUI_OLD_DIR names it."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from PIL import Image

from backend_pool.job_state import JobState
from backend_pool.model import JsonDict
from backend_pool.workers.install import Wishes, install
from tests.backend_pool.graphs import loaded, previewed, saved
from tests.backend_pool.test_way import picture
from tests.engine.graphs import node
from tests.real_comfyui import RealComfyUI, start_real_comfyui
from tests.worker_pack.beside import PATIENT
from tests.worker_pack.cluster import Hub, hub
from tests.worker_pack.link import linked

pytestmark = pytest.mark.comfyui
SLOW = {"upstream_timeout_s": 30.0, "probe_timeout_s": 10.0, "backend_down_after_s": 60.0}
NODES = Path(__file__).parents[1] / "custom_nodes"
CACHES = {"classic": (), "lru": ("--cache-lru", "10"), "ram": ("--cache-ram", "0.5")}
COUNTER = '''
"""Counts how often ComfyUI really loads a VAE, in a file beside the models."""
import folder_paths, nodes, os
load = nodes.VAELoader.load_vae
def counted(self, **names):
    with open(os.path.join(folder_paths.base_path, "loads"), "a") as out:
        out.write("x")
    return load(self, **names)
nodes.VAELoader.load_vae = counted
NODE_CLASS_MAPPINGS = {}
'''


@contextmanager
def real(root: Path, hub: Hub, *arguments: str, **wishes: object) -> Iterator[RealComfyUI]:
    """A real ComfyUI with the pack, installed as an operator does."""
    folder = root / "comfyui" / "custom_nodes"
    folder.mkdir(parents=True)
    for pack in ("silent_save", "telling", "early_save"):
        shutil.copytree(NODES / pack, folder / pack)
    install(folder, Wishes(server=hub.url, token=hub.token(), name="worker-one", **wishes))  # type: ignore[arg-type]
    server = start_real_comfyui(root / "comfyui", *arguments, custom_node=COUNTER)
    try:
        yield server
    finally:
        server.stop()


def decoded(user: str, prefix: str = "pic") -> JsonDict:
    """A model is loaded, a file of the user's encoded with it, decoded and saved: shared and own parts in one graph."""
    return {
        "1": node("LoadImage", image=f"{user}.png"),
        "2": node("VAELoader", vae_name="pixel_space"),
        "3": node("VAEEncode", pixels=["1", 0], vae=["2", 0]),
        "4": node("VAEDecode", samples=["3", 0], vae=["2", 0]),
        "5": node("SaveImage", images=["4", 0], filename_prefix=prefix),
    }


def loads(server: RealComfyUI) -> int:
    """How often the model was loaded."""
    path = server.base_dir / "loads"
    return len(path.read_text()) if path.exists() else 0


@pytest.fixture(params=["new", "old"])
def version(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """0.8.0, and an old one where it is."""
    if request.param == "old":
        if "COMFYUI_OLD_DIR" not in os.environ:
            pytest.skip("no old ComfyUI: set COMFYUI_OLD_DIR (a checkout of 0.3.64)")
        monkeypatch.setenv("COMFYUI_DIR", os.environ["COMFYUI_OLD_DIR"])
    return str(request.param)


@pytest.mark.parametrize("cache", CACHES)
async def test_users_in_turns(tmp_path: Path, version: str, cache: str) -> None:
    """A, B, A, B: own files, own counters, nobody is served another's; the loader runs once. By HTTP."""
    if version == "old" and cache == "ram":
        pytest.skip("0.3.64 has no such cache")
    async with hub(tmp_path, **SLOW) as h:
        with real(tmp_path, h, *CACHES[cache]) as server:
            await h.member()
            for user, name in ((1, "blue"), (2, "red")):
                picture(h.rig.dirs(user).input / "mine.png", name)
            for round_ in (1, 2):
                for user, colour in ((1, (0, 0, 255)), (2, (255, 0, 0))):
                    prompt = decoded("mine", f"round{round_}/pic")
                    job, document = await h.rig.run(prompt, user)
                    assert job.state is JobState.SUCCEEDED, document.messages
                    [shown] = document.outputs["5"]["images"]
                    assert shown == {"filename": "pic_00001_.png", "subfolder": f"round{round_}", "type": "output"}
                    with Image.open(h.rig.dirs(user).output / shown["subfolder"] / shown["filename"]) as made:
                        assert made.convert("RGB").getpixel((0, 0)) == colour
                        assert json.loads(made.info["prompt"])["5"] == prompt["5"]
            again, document = await h.rig.run(prompt, 2)
            assert set(h.rig.heard.first(again.prompt_id, "execution_cached")["nodes"]) == set(prompt)
            assert document.outputs["5"]["images"] == [shown]
            forged = decoded("mine")
            forged["1"]["is_changed"] = ["forged"]
            assert (await h.rig.run(forged, 1))[0].state is JobState.SUCCEEDED
            assert loads(server) == 1
            assert h.rig.files(2) == ["output/round1/pic_00001_.png", "output/round2/pic_00001_.png"]
            assert list((server.base_dir / "output").rglob("*.png")) == []


async def test_everything_a_job_does(tmp_path: Path, version: str) -> None:
    """On shared storage: unlisted and early saves, previews, events, foreign paths, refusals, an end midway."""
    async with hub(tmp_path, **SLOW) as h:
        for user in (1, 2):
            picture(h.rig.dirs(user).input / "mine.png", "blue")
        with real(tmp_path, h, shared_data=tmp_path / "users") as server:
            member = await h.member(holds=lambda m: m.shared)
            for user in (1, 2):
                prompt = saved() | {"7": node("SilentSave", images=["1", 0], name=f"of-{user}")}
                prompt |= {"8": node("EarlySave", images=["1", 0])}
                prompt |= {"9": node("StubbornSave", images=["1", 0])}
                job, document = await h.rig.run(prompt, user, targets=["2", "7", "8", "9"])
                assert job.state is JobState.SUCCEEDED, document.messages
                expected = ["ComfyUI_00001_.png", "early/early_00001_.png", f"silent/of-{user}.png", "stubborn.png"]
                assert h.rig.files(user) == [f"output/{name}" for name in expected]
                assert document.outputs["8"]["images"][0]["filename"] == "early_00001_.png"
            await h.rig.eventually(lambda: not list((server.base_dir / "output").rglob("*.png")))  # once it is fetched
            job, document = await h.rig.run(previewed(), 2)
            assert (h.rig.dirs(2).temp / document.outputs["2"]["images"][0]["filename"]).is_file()
            told = saved()
            told["9"] = node("Telling", image=["1", 0], text="psst")
            told["2"]["inputs"]["images"] = ["9", 0]
            job, _ = await h.rig.run(told)
            assert {"telling.you", "telling.all"} <= set(h.rig.heard.kinds(job.prompt_id))
            for path in ("../../1/input/mine.png", str(h.rig.dirs(1).input / "mine.png")):
                job, document = await h.rig.run(loaded(path), 2)
                assert job.state is JobState.FAILED, document.outputs
            job, document = await h.rig.run(saved(width=10**9))
            assert job.state is JobState.FAILED and "width" in document.messages[-1][1]["exception_message"]
            offered = json.dumps(member.info["LoadImage"])
            assert "mine.png" not in offered, "what the pool reads has no user's files in it"
            kept = h.rig.files(2)
            long = saved(width=2048, height=2048, batch_size=2)
            long["2"]["inputs"]["images"] = ["8", 0]
            for key in range(3, 9):
                source = "1" if key == 3 else str(key - 1)
                long[str(key)] = node("ImageBlur", image=[source, 0], blur_radius=31, sigma=10.0)
            prompt_id = await h.rig.submit(long, 2)
            await h.rig.heard.until(prompt_id, lambda kind, data: kind == "executing" and data["node"] == "3")
            server.process.send_signal(2)
            server.process.wait(30)
            assert h.rig.files(2) == kept, "ComfyUI empties its own temp directory as it ends, not the user's"


@pytest.mark.parametrize("storage", ["sent", "shared"])
async def test_the_next_job_begins_while_files_come_home(tmp_path: Path, version: str, storage: str) -> None:
    """Both write the same name where the pack asked for at import: each user gets their own."""
    colours = {1: (255, 0, 0), 2: (0, 0, 255)}
    async with linked() as link, hub(tmp_path, **SLOW | PATIENT) as h:
        for user in colours:
            h.rig.dirs(user)
        wishes = {"shared_data": tmp_path / "users"} if storage == "shared" else {}
        with real(tmp_path, h, advertise=link.url, **wishes) as server:
            link.to(server.url)
            member = await h.member(holds=lambda m: m.shared == (storage == "shared"))
            link.hold("/files")
            jobs = {}
            for user, (red, green, blue) in colours.items():
                prompt = saved(red << 16 | green << 8 | blue) | {"9": node("StubbornSave", images=["1", 0])}
                jobs[user] = await h.rig.submit(prompt, user, targets=["2", "9"])
                if user == 1:
                    await link.caught()
            assert (await h.rig.final(jobs[2], 2))[0].state is JobState.SUCCEEDED
            assert "executed" not in h.rig.heard.kinds(jobs[1]) and len(member.collecting) == 1
            link.let_go()
            job, document = await h.rig.final(jobs[1], 1)
            assert job.state is JobState.SUCCEEDED and job.attempt == 1, document.messages
            for user, colour in colours.items():
                assert h.rig.files(user) == ["output/ComfyUI_00001_.png", "output/stubborn.png"]
                for name in ("ComfyUI_00001_.png", "stubborn.png"):
                    with Image.open(h.rig.dirs(user).output / name) as made:
                        assert made.convert("RGB").getpixel((0, 0)) == colour
            kept = server.base_dir / "user" / "__cluster_worker" / "scratch"
            await h.rig.eventually(
                lambda: not any(kept.glob("*/*")) and not list(server.base_dir.rglob("stubborn.png"))
            )
