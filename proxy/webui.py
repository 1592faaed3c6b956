"""What the proxy adds to the WebUI: one extension script in the session's list of extensions.

It works with any session runtime, since it is added to the session's answer and served from /cluster/static/.
"""

import json

import aiohttp
from starlette.responses import JSONResponse, Response

from proxy.base.errors import Unavailable
from proxy.upstreams import Upstream, Upstreams

SCRIPT = "/cluster/static/webui.js"
TIMEOUT_S = 10.0


class WebUi:
    """Answers GET /extensions."""

    def __init__(self, upstreams: Upstreams) -> None:
        self._upstreams = upstreams

    def adds_to(self, path: str) -> bool:
        """Whether the path is the list of extensions."""
        return path in ("/extensions", "/api/extensions")

    async def extensions(self, upstream: Upstream) -> Response:
        """The session's extensions and ours. Raises Unavailable when the session does not answer."""
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
