"""Pools of connections to sessions, one per upstream key.

Owns the client sessions and their connectors, and the background tasks of the relays. Never reads the environment
(`trust_env=False`), never follows a redirect, never unpacks a body. Bounded: CONNECTIONS per upstream, overflow waits.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import aiohttp

from proxy.base.settings import Settings
from proxy.base.tasks import Tasks

CONNECTIONS = 128
KEEPALIVE_S = 15.0
"""Shorter than any server's own idle limit (aiohttp: 75 s), so that a pooled connection is rarely a dead one."""
HEAD_LIMIT = 32 * 1024
HEADERS_LIMIT = 256
READ_BUFFER = 128 * 1024


@dataclass(frozen=True)
class Upstream:
    """Where a relay sends a request: `base_url` has scheme and host only; `socket` wins over its host and port."""

    key: str
    socket: Path | None
    base_url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    """Added to each request, such as the session's secret."""


@dataclass(frozen=True)
class _Pool:
    socket: Path | None
    base_url: str
    connector: aiohttp.BaseConnector
    http: aiohttp.ClientSession
    websocket: aiohttp.ClientSession


class Upstreams:
    """The pools. Call within a running event loop."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._pools: dict[str, _Pool] = {}
        self.tasks = Tasks()

    def __len__(self) -> int:
        return len(self._pools)

    def client(self, upstream: Upstream) -> aiohttp.ClientSession:
        """The HTTP client of an upstream."""
        return self._pool(upstream).http

    def websocket_client(self, upstream: Upstream) -> aiohttp.ClientSession:
        """The same pool for `ws_connect`, which offers no way to refuse redirects per call."""
        return self._pool(upstream).websocket

    async def drop(self, key: str) -> None:
        """Close every connection of an upstream that is gone; unknown keys are fine."""
        pool = self._pools.pop(key, None)
        if pool is not None:
            await _close(pool)

    async def close(self) -> None:
        """Close everything."""
        for key in list(self._pools):
            await self.drop(key)
        await self.tasks.stop()

    def _pool(self, upstream: Upstream) -> _Pool:
        pool = self._pools.get(upstream.key)
        if pool is not None:
            if pool.socket == upstream.socket and pool.base_url == upstream.base_url:
                return pool
            self.tasks.start("close replaced upstream", _close(pool))
        pool = self._pools[upstream.key] = self._open(upstream)
        return pool

    def _open(self, upstream: Upstream) -> _Pool:
        connector: aiohttp.BaseConnector
        if upstream.socket is not None:
            connector = aiohttp.UnixConnector(str(upstream.socket), limit=CONNECTIONS, keepalive_timeout=KEEPALIVE_S)
        else:
            connector = aiohttp.TCPConnector(limit=CONNECTIONS, keepalive_timeout=KEEPALIVE_S)
        return _Pool(
            upstream.socket,
            upstream.base_url,
            connector,
            self._session(connector),
            self._session(connector, [_refuse_redirects()]),
        )

    def _session(
        self, connector: aiohttp.BaseConnector, traces: list[aiohttp.TraceConfig] | None = None
    ) -> aiohttp.ClientSession:
        limit_s = self._settings.upstream_timeout_s
        return aiohttp.ClientSession(
            connector=connector,
            connector_owner=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            skip_auto_headers=("Accept", "Accept-Encoding", "User-Agent", "Content-Type"),
            # No limit on the whole: the relay watches for standing still, in both directions.
            timeout=aiohttp.ClientTimeout(total=None, connect=limit_s, sock_connect=limit_s),
            read_bufsize=READ_BUFFER,
            max_line_size=HEAD_LIMIT,
            max_field_size=HEAD_LIMIT,
            max_headers=HEADERS_LIMIT,
            trace_configs=traces,
        )


async def _close(pool: _Pool) -> None:
    await pool.http.close()
    await pool.websocket.close()
    await pool.connector.close()
    await asyncio.sleep(0)  # transports close in the loop's next turn


def _refuse_redirects() -> aiohttp.TraceConfig:
    """A session's code must not send the proxy's own client to other hosts."""

    async def refuse(
        _client: aiohttp.ClientSession, _context: SimpleNamespace, params: aiohttp.TraceRequestRedirectParams
    ) -> None:
        params.response.close()
        raise aiohttp.TooManyRedirects(params.response.request_info, (), status=params.response.status)

    trace = aiohttp.TraceConfig()
    trace.on_request_redirect.append(refuse)
    return trace
