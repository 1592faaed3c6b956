"""Trial jobs and the failure ladder over a real ComfyUI, whose nodes fail with torch's own errors."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from backend_pool.backends.health import Health
from backend_pool.backends.trial import trial, trial_prompt
from backend_pool.job_state import JobState
from tests.backend_pool.graphs import saved
from tests.backend_pool.rig import engine_get, rig
from tests.engine.graphs import node
from tests.real_comfyui import start_real_comfyui

pytestmark = pytest.mark.comfyui
SLOW = {"upstream_timeout_s": 30.0, "probe_timeout_s": 10.0, "backend_down_after_s": 30.0}
PACK = '''
import torch

seen = {}


class FailsOnce:
    """Fails so often with an error of torch's, then passes its picture on."""

    @classmethod
    def INPUT_TYPES(cls):
        mishaps = (["memory", "fault"],)
        inputs = {"image": ("IMAGE",), "mishap": mishaps, "times": ("INT", {"default": 1}), "key": ("STRING", {})}
        return {"required": inputs}

    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "run"
    CATEGORY = "test"

    def run(self, image, mishap, times, key):
        seen[key] = seen.get(key, 0) + 1
        if seen[key] <= times and mishap == "memory":
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
        if seen[key] <= times:
            raise RuntimeError("CUDA error: device-side assert triggered")
        return (image,)


NODE_CLASS_MAPPINGS = {"FailsOnce": FailsOnce}
'''


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a real ComfyUI with that node."""
    server = start_real_comfyui(tmp_path_factory.mktemp("comfyui"), custom_node=PACK)
    yield server.url
    server.stop()


def failing(kind: str, times: int) -> dict[str, object]:
    """A picture that comes only after so many failures."""
    prompt = saved()
    fails = node(
        "FailsOnce", image=["1", 0], mishap=kind, times=times, key=f"{kind}{times}{prompt['1']['inputs']['color']}"
    )
    return {"1": prompt["1"], "7": fails, "2": node("SaveImage", images=["7", 0], filename_prefix="ComfyUI")}


async def test_the_trial_succeeds_and_leaves_nothing(tmp_path: Path, real: str) -> None:
    """With blurring, which its own code moves to the GPU where there is one."""
    async with rig(tmp_path, real, **SLOW) as r:
        member = r.pool.members[1]
        asked = trial_prompt(member.info)
        assert asked is not None and "2" in asked
        assert await trial(member, 60) is None
        assert await engine_get(real, "/history") == {}


async def test_memory_that_was_short_once(tmp_path: Path, real: str) -> None:
    """Freed and tried again: the user sees one run."""
    async with rig(tmp_path, real, **SLOW) as r:
        job, document = await r.run(failing("memory", 1))
        assert job.state is JobState.SUCCEEDED and job.attempt == 2, document.messages
        assert "execution_error" not in r.heard.kinds(job.prompt_id) and r.files() == ["output/ComfyUI_00001_.png"]


async def test_memory_that_is_always_short(tmp_path: Path, real: str) -> None:
    """ComfyUI's own error, with advice."""
    async with rig(tmp_path, real, **SLOW) as r:
        job, document = await r.run(failing("memory", 99))
        error = document.messages[-1][1]
        assert job.state is JobState.FAILED and job.attempt == 2
        assert "OutOfMemoryError" in error["exception_type"] and "no backend with more" in error["exception_message"]


async def test_a_fault_costs_a_trial(tmp_path: Path, real: str) -> None:
    """The GPU is well after all: the trial says so, and the job runs there again."""
    async with rig(tmp_path, real, **SLOW) as r:
        job, document = await r.run(failing("fault", 1))
        assert job.state is JobState.SUCCEEDED and job.avoid == [1], document.messages
        assert r.health() == [Health.UP] and r.pool.members[1].row.quarantine is None
