"""The door of a ComfyUI session: only its proxy comes in, no prompt is taken, no file of the user's runs as a page.

Middlewares around all of ComfyUI's routes, those of custom nodes included. The proxy owns prompts and their queue; a
session has nothing that would run one.
"""

from collections.abc import Awaitable, Callable

from aiohttp import web
from aiohttp.typedefs import Middleware

from proxy.base.errors import ClusterError, error_body
from user_sessions.light.files import HARMLESS
from user_sessions.light.secret import only_with

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

PROMPTS = frozenset({"/prompt", "/api/prompt"})
VIEWS = frozenset({"/view", "/api/view"})


def guard(app: web.Application, secret: str, *inner: Middleware) -> None:
    """Put them around the application, and `inner` inside; before it starts."""
    app.middlewares[:0] = [_answering(only_with(secret)), no_prompts, *inner]


@web.middleware
async def no_prompts(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refuse prompts in ComfyUI's own form; keep a user's SVG from running scripts in our origin."""
    if request.method == "POST" and request.path in PROMPTS:
        message = "This session runs no prompts: they go to the server's queue."
        body = error_body("prompt_refused", message) | {"node_errors": {}}
        return web.json_response(body, status=403)
    response = await handler(request)
    if request.path in VIEWS and not response.prepared:
        response.headers.update(HARMLESS)
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
