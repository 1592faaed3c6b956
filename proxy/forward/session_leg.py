"""The session's own websocket beside a tab's: its log lines and custom nodes' events, never its queue.

Follows the session through restarts. A tab without a running session simply has no leg; it is never started from here,
since a reconnecting tab is no user action. One that crashed is brought back: its user is looking at it.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable
from urllib.parse import quote

import aiohttp

from backend_pool.comfy.frames import decode
from proxy.base.errors import ClusterError
from proxy.base.logs import events
from proxy.base.settings import Settings
from proxy.forward.upstreams import Upstream, Upstreams
from proxy.tabs.user_socket import UserSocket

log = events(__name__)

LOOK_EVERY_S = 0.5
OURS = frozenset(
    {
        "status", "feature_flags", "execution_start", "execution_cached", "execution_success", "execution_error",
        "execution_interrupted", "executing", "executed", "progress", "progress_state",
    }
)  # fmt: skip
"""Kinds that the proxy alone tells: the session runs no prompts, and nothing in it may pretend to."""


class SessionLeg:
    """Relays until cancelled."""

    def __init__(
        self,
        find: Callable[[], Upstream | None],
        revive: Callable[[str | None], Awaitable[None]],
        upstreams: Upstreams,
        settings: Settings,
        tab: UserSocket,
    ) -> None:
        self._find = find
        self._revive = revive
        self._upstreams = upstreams
        self._settings = settings
        self._tab = tab

    async def run(self) -> None:
        """Connect whenever there is a session."""
        await self._bring_back(None)
        while True:
            upstream = self._find()
            if upstream is not None:
                try:
                    await self._relay(upstream)
                except (aiohttp.ClientError, OSError) as error:
                    log.debug("session leg lost", upstream=upstream.key, error=repr(error))
                except Exception as error:  # whatever a session sends, it must not take the user's own socket down
                    log.error("session leg failed", upstream=upstream.key, exc_info=error)
                await self._bring_back(upstream.key)
            await asyncio.sleep(LOOK_EVERY_S)

    async def _bring_back(self, key: str | None) -> None:
        try:
            await self._revive(key)
        except ClusterError as error:  # the next request tries again
            log.warning("session not brought back", upstream=key, error=error.message)

    async def _relay(self, upstream: Upstream) -> None:
        client = self._upstreams.websocket_client(upstream)
        async with client.ws_connect(
            f"{upstream.base_url}/ws?clientId={quote(self._tab.sid, safe='')}",
            headers=upstream.headers,
            heartbeat=self._settings.ping_interval_s,
            max_msg_size=self._settings.max_frame_mb * 1024 * 1024,
        ) as socket:
            await socket.send_str(json.dumps({"type": "feature_flags", "data": self._tab.features}))
            async for frame in socket:
                if frame.type is aiohttp.WSMsgType.TEXT:
                    message = decode(frame.data)
                    if message is not None and message.type not in OURS:
                        await self._tab.relay(frame.data)
