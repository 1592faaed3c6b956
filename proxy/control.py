"""The ASGI entry of everything under /cluster/; whatever goes wrong there leaves as one JSON object."""

from starlette.routing import Route, Router
from starlette.types import Message, Receive, Scope, Send

from proxy.api.errors import error_response, unexpected
from proxy.base.errors import ClusterError


class Control:
    """The routes of pages, API and health. Pages render their own errors."""

    def __init__(self, routes: list[Route]) -> None:
        self._router = Router(routes, redirect_slashes=True)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def noted(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._router({**scope, "app": self}, receive, noted)
        except Exception as error:
            if started or scope["type"] != "http":
                raise
            answer = error_response(scope, error) if isinstance(error, ClusterError) else unexpected(scope, error)
            await answer(scope, receive, send)
