"""Prompts of ours that one backend may still have though no job waits for them: cancelled ones that did not heed it,
ones given back while the backend was out of reach. Until they are gone the backend gets no new job.
"""

import asyncio
from collections import OrderedDict

from backend_pool.comfy.client import ComfyClient
from backend_pool.errors import BackendError
from backend_pool.workers.client import WorkerClient
from proxy.base.clock import monotonic_s

LOOK_EVERY_S = 0.5
KEPT = 1000


class Leftovers:
    """Bounded: the oldest is forgotten first."""

    def __init__(self, client: ComfyClient, worker: WorkerClient | None = None) -> None:
        """`worker`: where the backend has the worker pack, which keeps files of its jobs."""
        self._client = client
        self._worker = worker
        self._ids: OrderedDict[str, float] = OrderedDict()
        self.clearing = False

    def __bool__(self) -> bool:
        return bool(self._ids)

    def __contains__(self, upstream_id: str) -> bool:
        return upstream_id in self._ids

    @property
    def age_s(self) -> float:
        """How long the oldest has been there; 0 when there is none."""
        return monotonic_s() - min(self._ids.values()) if self._ids else 0.0

    def add(self, upstream_id: str) -> None:
        """A prompt to get rid of."""
        self._ids.setdefault(upstream_id, monotonic_s())
        while len(self._ids) > KEPT:
            self._ids.popitem(last=False)

    async def clear(self) -> None:
        """Work until none is left or the backend does not answer; calling it again goes on."""
        try:
            while self._ids:
                for upstream_id in list(self._ids):
                    if await self.end(upstream_id):
                        self._ids.pop(upstream_id, None)
                if self._ids:
                    await asyncio.sleep(LOOK_EVERY_S)
        except BackendError:
            return

    async def end(self, upstream_id: str) -> bool:
        """Interrupt or remove one prompt; True when the backend has nothing of it any more."""
        where = await self._client.whereabouts(upstream_id)
        if where == "running":
            await self._client.post("/interrupt", {"prompt_id": upstream_id})
        elif where == "pending":
            await self._client.post("/queue", {"delete": [upstream_id]})
        elif self._worker is not None:
            await self._worker.forget(upstream_id)
        elif where == "history":
            await self._client.post("/history", {"delete": [upstream_id]})
        return where in ("absent", "history")
