"""The gate of a session: only requests with its secret come in, and handlers never see the secret."""

import hmac
from collections.abc import Awaitable, Callable

from aiohttp import web
from aiohttp.typedefs import Middleware

from proxy.base.errors import BadInput, Forbidden
from user_sessions.runtime import SECRET_HEADER

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def only_with(secret: str) -> Middleware:
    """Middleware that refuses everything else with 403, unknown routes included."""
    expected = secret.encode()

    @web.middleware
    async def gate(request: web.Request, handler: Handler) -> web.StreamResponse:
        given = request.headers.getall(SECRET_HEADER, [])
        # surrogateescape: aiohttp decodes headers that way, so any byte may come
        if len(given) != 1 or not hmac.compare_digest(given[0].encode(errors="surrogateescape"), expected):
            raise Forbidden("This session answers its proxy only.")
        headers = request.headers.copy()
        del headers[SECRET_HEADER]
        try:
            stripped = request.clone(headers=headers)
        except UnicodeEncodeError as error:
            raise BadInput("A header is not valid text.") from error
        return await handler(stripped)

    return gate
