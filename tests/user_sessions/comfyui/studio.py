"""A session host that runs the stand-in for ComfyUI, and a way to ask its sessions."""

import contextlib
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from tests.user_sessions.comfyui.double import make_double
from tests.user_sessions.studio import Studio, open_studio
from tests.user_sessions.test_light_end_to_end import fetch
from user_sessions.live import Address


@contextlib.asynccontextmanager
async def double_studio(place: Path, double: Path | None = None, **more: Any) -> AsyncIterator[Studio]:
    """A studio at `place` whose sessions run that stand-in, or a fresh one."""
    comfyui = double or make_double(place / "ComfyUI")
    settings: dict[str, Any] = {"comfyui": comfyui, "comfyui_python": Path(sys.executable)} | more
    async with open_studio(place, "comfyui", **settings) as studio:
        yield studio


async def answer(address: Address, path: str) -> Any:
    """The JSON a session answers."""
    status, body = await fetch(address, "GET", path)
    assert status == 200, body
    return json.loads(body)
