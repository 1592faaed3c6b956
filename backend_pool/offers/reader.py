"""Asks one backend what it offers: its model lists often, since they cost little, its nodes when something has changed.

ComfyUI tells neither a version nor a change of object_info, which has megabytes. Its model lists are kept by it and
compared here; new nodes need a restart, which the probes see; and the whole is read now and then in any case.
"""

import asyncio
import hashlib
from typing import Any
from urllib.parse import quote

from backend_pool.comfy.answer_body import LIST_BYTES, WHOLE_BYTES
from backend_pool.comfy.client import ComfyClient
from backend_pool.comfy.json_text import parse
from backend_pool.errors import BackendBroken, BackendError
from backend_pool.offers.offer import Models, Offer
from backend_pool.prompts.node_info import usable
from proxy.base.clock import monotonic_s

WHOLE_EVERY_S = 60.0
WHOLE_TIMEOUT_S = 60.0
NOT_MODELS = frozenset({"custom_nodes"})
"""A folder that `/models` names and whose list would be every file of every node pack."""
MAX_FOLDERS, AT_ONCE = 256, 16
"""Folders of models that are read, and so many at a time; the rest is left out. A ComfyUI has two dozen."""
MAX_MODELS = 200_000
LONG_AGO = -1e9


class OfferReader:
    """One backend's. `look` is called by its probe only."""

    def __init__(self, client: ComfyClient, models_every_s: float, models_timeout_s: float) -> None:
        self._client = client
        self._models_every_s = models_every_s
        self._models_timeout_s = models_timeout_s
        self._models_at = self._whole_at = LONG_AGO
        self._digest = b""

    def ask_again(self) -> None:
        """Read everything at the next look: it was away, or somebody says that it has changed."""
        self._models_at = self._whole_at = LONG_AGO

    async def look(self, known: Offer) -> Offer:
        """What it offers now; `known` itself when that has not changed. Raises BackendError."""
        now = monotonic_s()
        models = known.models
        if now - self._models_at >= self._models_every_s:
            models = await self._models(known.models)
            self._models_at = now
        same_models = models == known.models
        if same_models and known.info and now - self._whole_at < WHOLE_EVERY_S:
            return known
        info = await self._info(known)
        self._whole_at = now
        return known if same_models and info is known.info else Offer(info, models)

    async def _info(self, known: Offer) -> Any:
        raw = await self._client.get_bytes("/object_info", WHOLE_TIMEOUT_S, WHOLE_BYTES)
        digest = await asyncio.to_thread(lambda: hashlib.sha256(raw).digest())
        if digest == self._digest and known.info:
            return known.info
        try:
            info = await asyncio.to_thread(parse, raw)
        except ValueError as error:
            raise BackendBroken(f"{self._client.label}/object_info did not answer JSON") from error
        if not isinstance(info, dict):
            raise BackendBroken(f"{self._client.label}/object_info is not an object")
        self._digest = digest
        return usable(info)

    async def _models(self, known: Models) -> Models:
        """All lists; a folder, or a backend, that does not answer keeps its last list."""
        try:
            folders = await self._client.get_json("/models", self._models_timeout_s)
        except BackendError:
            return known
        names = [name for name in folders if isinstance(name, str)] if isinstance(folders, list) else []
        models: dict[str, tuple[str, ...]] = {}
        for first in range(0, min(len(names), MAX_FOLDERS), AT_ONCE):
            some = names[first : min(first + AT_ONCE, MAX_FOLDERS)]
            lists = await asyncio.gather(*(self._folder(name, known.get(name, ())) for name in some))
            models.update(zip(some, lists, strict=True))
            if sum(map(len, models.values())) > MAX_MODELS:
                raise BackendBroken(f"{self._client.label}/models lists more than {MAX_MODELS} files")
        return models

    async def _folder(self, name: str, known: tuple[str, ...]) -> tuple[str, ...]:
        if name in NOT_MODELS:
            return ()
        try:
            found = await self._client.get_json(f"/models/{quote(name, safe='')}", self._models_timeout_s, LIST_BYTES)
        except BackendError:
            return known
        return tuple(file for file in found if isinstance(file, str)) if isinstance(found, list) else ()
