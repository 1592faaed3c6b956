"""The door of a ComfyUI session: only its proxy comes in, and no prompt is taken here.

Both are middlewares around all of ComfyUI's routes, those of custom nodes included. The proxy owns prompts and their
queue; a session has nothing that would run one.
"""

from collections.abc import Awaitable, Callable

from aiohttp import web
from aiohttp.typedefs import Middleware

from proxy.base.errors import ClusterError, error_body
from user_sessions.light.secret import only_with

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

PROMPTS = frozenset({"/prompt", "/api/prompt"})
HASHED_ASSETS = "/assets/"
YEAR = "public, max-age=31536000, immutable"


def guard(app: web.Application, secret: str) -> None:
    """Put both around the application; before it starts."""
    app.middlewares.insert(0, no_prompts)
    app.middlewares.insert(0, _answering(only_with(secret)))


@web.middleware
async def no_prompts(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refuse prompts in ComfyUI's own form; keep the frontend's hashed files for good."""
    if request.method == "POST" and request.path in PROMPTS:
        message = "This session runs no prompts: they go to the server's queue."
        body = error_body("prompt_refused", message) | {"node_errors": {}}
        return web.json_response(body, status=403)
    response = await handler(request)
    if request.path.startswith(HASHED_ASSETS) and response.status in (200, 206, 304):
        response.headers["Cache-Control"] = YEAR  # ComfyUI has the browser ask for each of them at every load
    return response


def _answering(gate: Middleware) -> Middleware:
    """What the gate raises, as an answer: ComfyUI has no middleware for our errors."""

    @web.middleware
    async def outermost(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await gate(request, handler)
        except ClusterError as error:
            return web.json_response(error.body(), status=error.status)

    return outermost
