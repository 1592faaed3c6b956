"""A person with an account, as tests see them: an API client signed in by token, their own directories on disk."""

import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.cluster import Cluster, Person
from tests.contract.graphs import Prompt, node
from tests.contract.wire import Comfy, Frame, Socket

CHECKPOINT = "v1-5-pruned-emaonly-fp16.safetensors"


class Someone:
    """One user of a cluster. `comfy` speaks ComfyUI's API with the user's token in the path."""

    def __init__(self, cluster: Cluster, person: Person) -> None:
        self.person = person
        self.cluster = cluster
        self.comfy = Comfy(f"{cluster.url}/t/{person.token}")
        self.folder = cluster.data_dir / "users" / person.slug

    @property
    def bearer(self) -> dict[str, str]:
        """The token as a header."""
        return {"Authorization": f"Bearer {self.person.token}"}

    def files(self, kind: str = "output") -> list[Path]:
        """What lies in a directory of theirs, partial files included."""
        return sorted(path for path in (self.folder / kind).rglob("*") if path.is_file())

    async def runs(self, prompt: Prompt, client_id: str | None = None, **more: Any) -> str:
        """Queue a prompt and wait for its end; its id."""
        client = client_id or uuid.uuid4().hex
        async with self.comfy.socket(client) as socket:
            prompt_id = await self.comfy.submit(prompt, client, **more)
            await socket.job(prompt_id)
        return prompt_id

    async def job(self, prompt_id: str) -> dict[str, Any]:
        """The job as /api/jobs tells it."""
        answer = await self.comfy.get(f"/api/jobs/{prompt_id}")
        assert answer.status == 200, answer.body
        found = answer.json()
        assert isinstance(found, dict)
        return found

    async def picture(self, prompt_id: str) -> bytes:
        """The one picture of a finished job, as /view gives it."""
        ((image,),) = [ui["images"] for ui in (await self.comfy.history(prompt_id))["outputs"].values()]
        answer = await self.comfy.get("/view", params=image)
        assert answer.status == 200, answer.body
        return answer.body

    async def ids(self) -> tuple[list[str], list[str], list[str]]:
        """Prompt ids running, waiting and finished."""
        queue = (await self.comfy.get("/queue")).json()
        history = (await self.comfy.get("/history")).json()
        return _second(queue["queue_running"]), _second(queue["queue_pending"]), list(history)

    async def leave(self) -> None:
        """End what is theirs; the backends are free afterwards."""
        running, waiting, _ = await self.ids()
        if running or waiting:
            await self.comfy.post("/api/jobs/cancel", {"job_ids": [*waiting, *running]})
            async with self.comfy.socket("leaving") as socket:
                await until_idle(socket)
        await self.comfy.close()


def remaining(frame: Frame) -> int | None:
    """What a `status` frame counts, None for other frames."""
    return int(frame.data["status"]["exec_info"]["queue_remaining"]) if frame.kind == "status" else None


async def until_idle(socket: Socket) -> None:
    """Read until the last word is that nothing remains, the first message counted."""
    while next(count for frame in reversed(socket.frames) if (count := remaining(frame)) is not None):
        await socket.read()


def painting(seed: int, steps: int = 2, prefix: str = "painting") -> Prompt:
    """A sampled picture; each step takes the engine's step time, so `steps` says how long it runs."""
    return {
        "1": node("CheckpointLoaderSimple", ckpt_name=CHECKPOINT),
        "2": node("CLIPTextEncode", text=f"a lighthouse, {prefix}", clip=["1", 1]),
        "3": node(
            "KSampler", model=["1", 0], positive=["2", 0], negative=["2", 0], latent_image=["4", 0], seed=seed,
            steps=steps, cfg=7.0, sampler_name="euler", scheduler="normal", denoise=1.0,
        ),
        "4": node("EmptyLatentImage", width=64, height=64, batch_size=1),
        "5": node("VAEDecode", samples=["3", 0], vae=["1", 2]),
        "9": node("SaveImage", images=["5", 0], filename_prefix=prefix),
    }  # fmt: skip


def endless(seed: int) -> Prompt:
    """Runs for most of a minute unless somebody ends it."""
    return painting(seed, steps=10_000, prefix="endless")


def _second(items: Iterable[list[Any]]) -> list[str]:
    return [str(item[1]) for item in items]
