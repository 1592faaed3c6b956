"""What the proxy adds to the WebUI: one extension script in the session's list of extensions, and its starter workflow.

It works with any session runtime, since it is added to the session's answer and served from /cluster/static/.
"""

import asyncio
import json
from urllib.parse import parse_qs

import aiohttp
from starlette.responses import JSONResponse, Response

from proxy.base.errors import Unavailable
from proxy.forward.upstreams import Upstream, Upstreams
from proxy.starter import Starter

SCRIPT = "/cluster/static/webui.js"
STARTER = "/extensions/comfyui-cluster/starter.json"
LISTS = ("/extensions", "/api/extensions")
TIMEOUT_S = 10.0


class WebUi:
    """Answers GET /extensions and GET /extensions/comfyui-cluster/starter.json."""

    def __init__(self, upstreams: Upstreams, starter: Starter) -> None:
        self._upstreams = upstreams
        self._starter = starter

    def answers(self, path: str) -> bool:
        """Whether the path is one of those."""
        return path == STARTER or path in LISTS

    async def answer(self, path: str, upstream: Upstream, query: str = "") -> Response:
        """The answer to such a path. Raises Unavailable when the session does not answer."""
        if path == STARTER:
            default = parse_qs(query).get("default", [])  # versions of the frontend differ in their graph
            workflow = await asyncio.to_thread(self._starter.workflow, default)
            return JSONResponse(workflow, headers={"Cache-Control": "no-store"})
        return await self._extensions(upstream)

    async def _extensions(self, upstream: Upstream) -> Response:
        """The session's extensions and ours."""
        client = self._upstreams.client(upstream)
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
        url = f"{upstream.base_url}/extensions"
        try:
            async with client.get(url, headers=upstream.headers, timeout=timeout) as response:
                listed = json.loads(await response.read())
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            raise Unavailable("Your workspace did not answer. Reload the page.", repr(error)) from error
        known = listed if isinstance(listed, list) else []
        return JSONResponse([*known, SCRIPT], headers={"Cache-Control": "no-store"})
