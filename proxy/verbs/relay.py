"""`comfy-cluster relay`: a local address for clients that cannot send a token; it adds the token to what comes in.

Whoever reaches it acts as the token's owner. So it listens on this machine only unless told otherwise, and refuses what
other sites' pages make a browser send: foreign Origins, and host names that are not its own (DNS rebinding). Bodies and
frames stream; nothing is kept beyond one chunk each way (overflow: wait).
"""

import asyncio
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import urlsplit

import aiohttp
from aiohttp import hdrs, web
from multidict import CIMultiDict
from yarl import URL

from proxy.base.errors import ConfigError, Forbidden, Unavailable
from proxy.base.logs import events
from proxy.verbs.relay_ws import join

CHUNK = 64 * 1024
CONNECT_TIMEOUT_S = 10.0
STALL_TIMEOUT_S = 300.0
CONNECTIONS = 100
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
NOT_SENT = frozenset(
    {
        "connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection", "te", "trailer",
        "transfer-encoding", "upgrade", "expect", "host", "authorization", "cookie", "x-api-key", "origin", "referer",
    }
)  # fmt: skip
"""Hop-by-hop, ours to set, or naming an address that the server would take for a foreign site's."""
NOT_RETURNED = frozenset(
    {"connection", "keep-alive", "proxy-authenticate", "trailer", "transfer-encoding", "upgrade", "set-cookie"}
)
NOT_INVENTED = (hdrs.ACCEPT, hdrs.ACCEPT_ENCODING, hdrs.CONTENT_TYPE, hdrs.USER_AGENT)
"""What the client library would add; a client that asked for no compression must not get any."""

log = events(__name__)


@dataclass(frozen=True)
class Listen:
    """Where to serve."""

    host: str
    port: int

    @property
    def local(self) -> bool:
        """Whether only this machine reaches it."""
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


def run_relay(listen: str, server: str, token: str, *, allow_network: bool = False) -> None:
    """Serve until SIGTERM or Ctrl-C. Raises ConfigError for unusable arguments, Unavailable when no server answers."""
    where = parsed(listen)
    if not where.local and not allow_network:
        raise ConfigError(
            f"{where.host} can be reached from other machines, and whoever reaches the relay acts as you, without a "
            "password. Listen on 127.0.0.1, or add --allow-network if the network is yours alone."
        )
    asyncio.run(_serve(where, base_url(server), token, allow_network))


def parsed(listen: str) -> Listen:
    """`HOST:PORT`, `[::1]:PORT`. Raises ConfigError."""
    try:
        parts = urlsplit(f"//{listen}")
        if parts.hostname and parts.port is not None and not parts.path:
            return Listen(parts.hostname, parts.port)
    except ValueError:
        pass
    raise ConfigError(f"{listen!r} is no address to listen on. Give HOST:PORT, such as 127.0.0.1:8188.")


def base_url(server: str) -> str:
    """The server's URL without a slash at its end. Raises ConfigError."""
    parts = urlsplit(server if "://" in server else f"http://{server}")
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ConfigError(f"{server!r} is no URL of a server. Give one such as https://comfy.example.")
    return parts.geturl().rstrip("/")


class Relay:
    """Forwards one server's requests."""

    def __init__(self, client: aiohttp.ClientSession, server: str, token: str, names: frozenset[str] | None) -> None:
        self._client = client
        self._server = server
        self._token = token
        self._names = names

    def app(self) -> web.Application:
        """Every path goes to the server."""
        app = web.Application()
        app.router.add_route("*", r"/{path:[\s\S]*}", self._handle)
        return app

    async def check(self) -> str:
        """Name of the token's owner. Raises ConfigError for a refused token, Unavailable without a server."""
        try:
            url = f"{self._server}/cluster/api/v1/me"
            async with self._client.get(url, headers=self._own_headers(), allow_redirects=False) as answer:
                if answer.status in (401, 403):
                    raise ConfigError(f"{self._server} refuses the token. Make a new one on your account page.")
                return str((await answer.json())["name"])
        except (aiohttp.ClientError, TimeoutError, ValueError, KeyError, TypeError) as error:
            raise Unavailable(f"{self._server} does not answer as a cluster proxy: {error!r}") from error

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        try:
            self._refuse_strangers(request)
        except Forbidden as error:
            return web.json_response(error.body(), status=error.status)
        url = URL(self._server + request.raw_path, encoded=True)
        try:
            if request.headers.get(hdrs.UPGRADE, "").lower() == "websocket":
                return await join(request, self._client, url, self._own_headers())
            return await self._forward(request, url)
        except aiohttp.WSServerHandshakeError as error:
            return web.json_response(
                Unavailable("The server refused the WebSocket.", error.message).body(), status=error.status
            )
        except (aiohttp.ClientError, TimeoutError) as error:
            log.warning("server did not answer", server=self._server, error=repr(error))
            return web.json_response(Unavailable("The cluster proxy did not answer.", repr(error)).body(), status=502)

    async def _forward(self, request: web.Request, url: URL) -> web.StreamResponse:
        headers = CIMultiDict((k, v) for k, v in request.headers.items() if k.lower() not in NOT_SENT)
        headers.update(self._own_headers())
        body = request.content.iter_chunked(CHUNK) if request.can_read_body else None
        async with self._client.request(
            request.method, url, headers=headers, data=body, allow_redirects=False
        ) as answer:
            returned = CIMultiDict((k, v) for k, v in answer.headers.items() if k.lower() not in NOT_RETURNED)
            if hdrs.LOCATION in returned:
                returned[hdrs.LOCATION] = returned[hdrs.LOCATION].removeprefix(self._server) or "/"
            response = web.StreamResponse(status=answer.status, reason=answer.reason, headers=returned)
            await response.prepare(request)
            try:
                async for chunk in answer.content.iter_chunked(CHUNK):
                    await response.write(chunk)
            except (aiohttp.ClientError, TimeoutError) as error:
                # The head is out: only a broken connection can still say that the body is not whole.
                log.warning("server broke off", server=self._server, error=repr(error))
                if request.transport is not None:
                    request.transport.abort()
                return response
            await response.write_eof()
            return response

    def _own_headers(self) -> Mapping[str, str]:
        return {hdrs.AUTHORIZATION: f"Bearer {self._token}"}

    def _refuse_strangers(self, request: web.Request) -> None:
        name = urlsplit(f"//{request.host}").hostname or ""
        if self._names is not None and name not in self._names:
            raise Forbidden(f"The relay does not serve the name {name}. Use the address it printed.")
        origin = request.headers.get(hdrs.ORIGIN)
        if origin is not None and urlsplit(origin).netloc != request.host:
            raise Forbidden("The relay serves its own pages only, not those of other sites.")


async def _serve(where: Listen, server: str, token: str, open_to_all: bool) -> None:
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    timeout = aiohttp.ClientTimeout(
        connect=CONNECT_TIMEOUT_S, sock_connect=CONNECT_TIMEOUT_S, sock_read=STALL_TIMEOUT_S
    )
    client = aiohttp.ClientSession(
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        connector=aiohttp.TCPConnector(limit=CONNECTIONS),
        timeout=timeout,
        skip_auto_headers=NOT_INVENTED,
        trust_env=urlsplit(server).hostname not in LOOPBACK,  # an office may reach the server through a proxy only
    )
    async with client:
        relay = Relay(client, server, token, None if open_to_all else LOOPBACK | {where.host})
        owner = await relay.check()
        runner = web.AppRunner(relay.app(), access_log=None, shutdown_timeout=1.0, handler_cancellation=True)
        await runner.setup()
        try:
            site = web.TCPSite(runner, where.host, where.port)
            try:
                await site.start()
            except OSError as error:
                raise ConfigError(
                    f"{where.host}:{where.port} cannot be listened on: {error.strerror or error}. "
                    "Choose another --listen, or stop what uses it."
                ) from error
            for address in runner.addresses:
                host = f"[{address[0]}]" if ":" in address[0] else address[0]
                sys.stdout.write(f"Ready: http://{host}:{address[1]} as {owner} on {server}\n")
            sys.stdout.flush()
            await stopped.wait()
        finally:
            await runner.cleanup()
