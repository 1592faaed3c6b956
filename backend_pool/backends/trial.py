"""A tiny real job that shows whether a backend can still work: a small picture, blurred on its GPU and shown.

After a CUDA error a ComfyUI answers HTTP as ever while every job fails, so only a job tells. ComfyUI makes pictures on
the CPU; of its own nodes that need no model, blurring runs on the GPU.
"""

import asyncio
import contextlib
import random
from typing import Any

from backend_pool.backends.member import Member
from backend_pool.comfy.result import error_of, result_of
from backend_pool.errors import BackendError, BackendRefused
from backend_pool.files.references import references
from backend_pool.model import JsonDict
from backend_pool.prompts.node_info import ObjectInfo
from proxy.base.clock import monotonic_s
from proxy.base.names import new_id

LOOK_FIRST_S, LOOK_LONGEST_S = 0.02, 0.5
SIDE = 16
LINE = 200


class Busy(Exception):
    """It was not run: something else, not of ours, occupies the backend."""


def trial_prompt(info: ObjectInfo) -> JsonDict | None:
    """The job for a backend with these nodes; None where it lacks them. A new colour each time: no cache serves it."""
    if not {"EmptyImage", "PreviewImage"} <= info.keys():
        return None
    color = random.randrange(1 << 24)  # noqa: S311
    made: dict[str, Any] = {"width": SIDE, "height": SIDE, "batch_size": 1, "color": color}
    prompt: JsonDict = {"1": {"class_type": "EmptyImage", "inputs": made}}
    last = "1"
    if "ImageBlur" in info:
        prompt["2"] = {"class_type": "ImageBlur", "inputs": {"image": ["1", 0], "blur_radius": 1, "sigma": 1.0}}
        last = "2"
    return {**prompt, "3": {"class_type": "PreviewImage", "inputs": {"images": [last, 0]}}}


async def trial(member: Member, timeout_s: float) -> str | None:
    """Run it; what went wrong in words, None when nothing did. Raises Busy, and BackendGone when it stops answering."""
    prompt = trial_prompt(member.info)
    if prompt is None:
        return None
    upstream_id = new_id()
    order = {"prompt": prompt, "prompt_id": upstream_id, "client_id": new_id().replace("-", ""), "extra_data": {}}
    try:
        await member.client.submit(order)
    except BackendRefused as refused:
        return f"it refuses a trial job: {str(refused.body)[:LINE]}"
    if not await _ended(member, upstream_id, timeout_s):
        where = await member.client.whereabouts(upstream_id)
        if where != "history":
            member.leftovers.add(upstream_id)
            if where == "pending":
                raise Busy
            return f"a trial job did not end in {timeout_s:g} s"
    entry = await member.client.history(upstream_id) or {}
    result = result_of(entry, upstream_id)
    await _clean(member, upstream_id, result.outputs)
    error = error_of(result.messages)
    if error is None:
        return None
    said = " ".join(str(error.get("exception_message", "")).split())[:LINE]
    return f"a trial job failed: {error.get('exception_type')}: {said}"


async def _ended(member: Member, upstream_id: str, timeout_s: float) -> bool:
    deadline, pause_s = monotonic_s() + timeout_s, LOOK_FIRST_S
    while monotonic_s() < deadline:
        if await member.client.whereabouts(upstream_id) in ("history", "absent"):
            return True
        await asyncio.sleep(pause_s)
        pause_s = min(LOOK_LONGEST_S, pause_s * 1.5)
    return False


async def _clean(member: Member, upstream_id: str, outputs: JsonDict) -> None:
    """Leave nothing but an empty file in temp, which ComfyUI empties when it starts: no route deletes one."""
    with contextlib.suppress(BackendError):
        await member.client.post("/history", {"delete": [upstream_id]})
        for ref in references(outputs):
            await member.client.overwrite(ref, b"")
