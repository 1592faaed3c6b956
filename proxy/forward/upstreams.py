"""Connections to sessions, by upstream key: an HTTP pool and a WebSocket client each.

Owns them and the background tasks of the relays. Never reads the environment (`trust_env=False`), never follows a
redirect, never unpacks a body. Bounded: CONNECTIONS of each kind per upstream, overflow waits.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from proxy.base.redirects import refuse_redirects
from proxy.base.settings import Settings
from proxy.base.tasks import Tasks
from proxy.forward.upstream_pool import Pool

CONNECTIONS = 128
DRAIN_S = 1.0


@dataclass(frozen=True)
class Upstream:
    """Where a relay sends a request: `base_url` has scheme and host only; `socket` wins over its host and port."""

    key: str
    socket: Path | None
    base_url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    """Added to each request, such as the session's secret."""


@dataclass(frozen=True)
class _Links:
    socket: Path | None
    base_url: str
    http: Pool
    client: aiohttp.ClientSession


class Upstreams:
    """All upstreams in use. Call within a running event loop."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._links: dict[str, _Links] = {}
        self.tasks = Tasks()

    def __len__(self) -> int:
        return len(self._links)

    def http(self, upstream: Upstream) -> Pool:
        """The pool that relays use."""
        return self._of(upstream).http

    def client(self, upstream: Upstream) -> aiohttp.ClientSession:
        """A client for requests of our own; a redirect raises aiohttp.TooManyRedirects."""
        return self._of(upstream).client

    websocket_client = client
    """The same, for `ws_connect`, which offers no way to refuse redirects per call."""

    async def drop(self, key: str) -> None:
        """Close every connection of an upstream that is gone or about to be; what is under way there may come to its
        end within DRAIN_S. Unknown keys are fine."""
        links = self._links.pop(key, None)
        if links is not None:
            await links.http.drain(DRAIN_S)
            await _close(links)

    def busy(self) -> set[str]:
        """Keys of those that answer a request right now."""
        return {key for key, links in self._links.items() if links.http.busy}

    async def close(self) -> None:
        """Close everything."""
        for key in list(self._links):
            await _close(self._links.pop(key))
        await self.tasks.stop()

    def _of(self, upstream: Upstream) -> _Links:
        links = self._links.get(upstream.key)
        if links is not None:
            if links.socket == upstream.socket and links.base_url == upstream.base_url:
                return links
            self.tasks.start("close replaced upstream", _close(links))
        links = self._links[upstream.key] = self._open(upstream)
        return links

    def _open(self, upstream: Upstream) -> _Links:
        limit_s = self._settings.upstream_timeout_s
        connector: aiohttp.BaseConnector
        if upstream.socket is not None:
            connector = aiohttp.UnixConnector(str(upstream.socket), limit=CONNECTIONS)
        else:
            connector = aiohttp.TCPConnector(limit=CONNECTIONS)
        client = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            skip_auto_headers=("Accept", "Accept-Encoding", "User-Agent", "Content-Type"),
            timeout=aiohttp.ClientTimeout(total=None, connect=limit_s, sock_connect=limit_s),
            trace_configs=[refuse_redirects()],
        )
        pool = Pool(upstream.socket, upstream.base_url, limit=CONNECTIONS, timeout_s=limit_s)
        return _Links(upstream.socket, upstream.base_url, pool, client)


async def _close(links: _Links) -> None:
    await links.http.close()
    await links.client.close()
