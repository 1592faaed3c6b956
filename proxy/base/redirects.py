"""Refuses redirects for every request of an aiohttp client, WebSockets included, which offer no way to do so per call.

Whoever answers from a session or a backend must not send the proxy's own client, and the secrets it carries, elsewhere.
"""

from types import SimpleNamespace

import aiohttp


def refuse_redirects() -> aiohttp.TraceConfig:
    """For a client's `trace_configs`: a redirect raises aiohttp.TooManyRedirects, and nothing is sent to its target."""

    async def refuse(
        _client: aiohttp.ClientSession, _context: SimpleNamespace, params: aiohttp.TraceRequestRedirectParams
    ) -> None:
        params.response.close()
        raise aiohttp.TooManyRedirects(params.response.request_info, (), status=params.response.status)

    trace = aiohttp.TraceConfig()
    trace.on_request_redirect.append(refuse)
    return trace
