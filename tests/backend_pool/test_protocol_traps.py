"""What a client of ComfyUI gets wrong when its connection comes back."""

from pathlib import Path

from backend_pool.comfy.frames import PREVIEW_IMAGE_WITH_METADATA, binary_type
from tests.backend_pool.conftest import Start
from tests.backend_pool.graphs import sampled
from tests.backend_pool.rig import arm, rig


async def test_previews_keep_their_metadata_after_a_dropped_socket(tmp_path: Path, start: Start) -> None:
    """ComfyUI forgets a client's flags with its socket: they are to be said again before anything else."""
    engine = start()
    async with rig(tmp_path, engine.url) as r:
        await arm(engine.url, fault="drop_ws", node="KSampler", step=2)
        prompt_id = await r.submit(sampled(steps=10_000))

        def with_metadata_again() -> bool:
            story = r.heard.of(prompt_id)
            later = (at for at, (kind, data) in enumerate(story) if kind == "progress" and data["value"] > 3)
            new = story[next(later, len(story)) :]
            return any(kind == "binary" and binary_type(data) == PREVIEW_IMAGE_WITH_METADATA for kind, data in new)

        # The first ones after a connection may overtake the flags on their way: those are plain, and clients know both.
        await r.eventually(with_metadata_again)
        steps = [data["value"] for kind, data in r.heard.of(prompt_id) if kind == "progress"]
        assert steps != list(range(1, len(steps) + 1))  # some were lost with the socket
        await r.cancel(prompt_id)
        await r.final(prompt_id)
