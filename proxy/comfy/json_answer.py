"""JSON answers of ComfyUI's own routes: plain ASCII, as aiohttp writes it. Half a surrogate in somebody's prompt, which
JSON can carry and UTF-8 cannot, must not take a whole queue or history down."""

import json
from typing import Any

from starlette.responses import JSONResponse


def dumps(content: Any) -> str:
    """JSON with every other character escaped."""
    return json.dumps(content, allow_nan=False, separators=(",", ":"))


class ComfyJson(JSONResponse):
    """A JSONResponse with every other character escaped."""

    def render(self, content: Any) -> bytes:
        return dumps(content).encode("ascii")
