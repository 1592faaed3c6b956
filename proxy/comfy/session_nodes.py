"""Nodes that a user's session has and no backend: a prompt with one is refused in words that say so.

Asked only about a prompt that is refused already, of a session that runs, for a short while. What the session answers
goes into that one sentence and nowhere else: the canvas and the queue know the pool's nodes alone.
"""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from urllib.parse import quote

import aiohttp

from backend_pool.offers.judgement import absent_class
from backend_pool.offers.pool_info import PoolInfo
from backend_pool.prompts.validation import Verdict
from proxy.base.logs import events
from proxy.forward.upstreams import Upstream, Upstreams

log = events(__name__)

TIMEOUT_S = 2.0
LONGEST_BYTES = 256 * 1024
LONGEST_NAME = 200


class SessionNodes:
    """Asks sessions; `find` gives where a user's runs, None when it does not."""

    def __init__(self, find: Callable[[int], Upstream | None], upstreams: Upstreams) -> None:
        self._find = find
        self._upstreams = upstreams

    async def explained(self, verdict: Verdict, prompt: object, pool: PoolInfo, user_id: int) -> Verdict:
        """The verdict; one for a node that only the user's session has says so."""
        absent = absent_class(verdict, prompt, pool)
        if absent is None or verdict.error is None or not await self._has(user_id, absent[1]):
            return verdict
        details = (
            f"Node ID '#{absent[0]}'. Your session has the node {absent[1]}, but no backend has it, so it cannot run. "
            "It would have to be installed on the backends."
        )
        return replace(verdict, error={**verdict.error, "details": details})

    async def _has(self, user_id: int, kind: str) -> bool:
        upstream = self._find(user_id)
        if upstream is None or len(kind) > LONGEST_NAME:
            return False
        client = self._upstreams.client(upstream)
        url = f"{upstream.base_url}/object_info/{quote(kind, safe='')}"
        try:
            async with asyncio.timeout(TIMEOUT_S), client.get(url, headers=upstream.headers) as answer:
                if answer.status != 200:
                    return False
                # Its code is the user's own: a true answer is short, and all that counts is whether it is not `{}`.
                found = await answer.content.read(LONGEST_BYTES)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            log.debug("a session was not asked about a node", upstream=upstream.key, error=repr(error))
            return False
        return found.lstrip().startswith(b"{") and found.strip() != b"{}"
