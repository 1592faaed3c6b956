"""ComfyUI's model routes over the pool: names from what the backends last told, details from those that have the file.

Lists of names cost no request to a backend. Sizes, metadata and preview pictures are asked for when somebody looks, at
the same time, and kept for a few seconds; a slow backend's last answer stands in. Paths of machines are not shown.
"""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response

from backend_pool.backends.health import Health
from backend_pool.backends.member import Member
from backend_pool.backends.pool import Pool
from backend_pool.comfy.answer_body import LIST_BYTES
from backend_pool.errors import BackendError
from backend_pool.prompts.spelling import spelled
from proxy.base.clock import monotonic_s
from proxy.comfy.json_answer import ComfyJson
from proxy.comfy.packed_answer import packed_json

KEPT_S = 10.0
KEPT_ANSWERS = 500
NOT_EXPERIMENT = frozenset({"configs", "custom_nodes"})
"""Folders that `/experiment/models` leaves out (app/model_manager.py)."""
PREVIEW_HEADERS = {"Cache-Control": "private, max-age=300", "X-Content-Type-Options": "nosniff"}


@dataclass
class ModelRoutes:
    """Handlers. Answers of backends are kept for KEPT_S seconds, at most KEPT_ANSWERS of them (the oldest goes)."""

    pool: Pool
    _answers: dict[str, tuple[float, Any]] = field(default_factory=dict)

    async def embeddings(self, request: Request) -> Response:
        """GET /embeddings: names without their endings."""
        return packed_json(request, self.pool.info.models.embeddings())

    async def models(self, request: Request) -> Response:
        """GET /models: folder names."""
        return ComfyJson(self.pool.info.models.folders())

    async def models_in(self, request: Request) -> Response:
        """GET /models/{folder}: file names, 404 for a folder that no backend has."""
        names = self.pool.info.models.names(request.path_params["folder"])
        return Response(status_code=404) if names is None else packed_json(request, names)

    async def experiment_models(self, request: Request) -> Response:
        """GET /experiment/models: folders, without the machines' paths."""
        names = [name for name in self.pool.info.models.folders() if name not in NOT_EXPERIMENT]
        return ComfyJson([{"name": name, "folders": [f"models/{name}"]} for name in names])

    async def experiment_models_in(self, request: Request) -> Response:
        """GET /experiment/models/{folder}: name, size and times, each file once; 404 as for `/models/{folder}`."""
        folder = request.path_params["folder"]
        if self.pool.info.models.names(folder) is None:
            return Response(status_code=404)
        entries: dict[str, Any] = {}
        for found in await self._entries(folder):
            for name, entry in found.items():
                entries.setdefault(name, entry)
        return packed_json(request, list(entries.values()))

    async def preview(self, request: Request) -> Response:
        """GET /experiment/models/preview/{folder}/{index}/{file}: from a backend that has the file and a picture."""
        params = request.path_params
        folder, name = params["folder"], spelled(params["filename"])
        members = self._having(folder, name)
        for member, entries in zip(members, await self._entries(folder, members), strict=True):
            entry = entries.get(name)
            if entry is None:
                continue
            # The index counts one backend's own folders.
            file = quote(str(entry["name"]), safe="/")
            path = f"/experiment/models/preview/{quote(folder, safe='')}/{int(entry.get('pathIndex') or 0)}/{file}"
            try:
                picture = await member.client.get_bytes(path, self.pool.probe_timeout_s, LIST_BYTES)
            except BackendError:
                continue
            return Response(picture, headers=PREVIEW_HEADERS, media_type="image/webp")
        return Response(status_code=404)

    async def view_metadata(self, request: Request) -> Response:
        """GET /view_metadata/{folder}?filename=: from the first backend that has the file."""
        folder, name = request.path_params["folder"], request.query_params.get("filename", "")
        path = f"/view_metadata/{quote(folder, safe='')}?filename={quote(name, safe='')}"
        answers = await self._answers_of(path, self._having(folder, name))
        found = next((answer for answer in answers if answer is not None), None)
        return Response(status_code=404) if found is None else ComfyJson(found)

    def _having(self, folder: str, name: str) -> list[Member]:
        """The backends that have a file, so that nobody asks them for another."""
        members = (self.pool.member(key) for key in self.pool.info.models.having(folder, name))
        return [member for member in members if member is not None and member.health is not Health.DOWN]

    async def _entries(self, folder: str, members: Iterable[Member] | None = None) -> list[dict[str, Any]]:
        """What each backend tells of the files of a folder, by name spelled with slashes; hidden ones left out."""
        shown = self.pool.info.models.owners(folder)
        answers = await self._answers_of(f"/experiment/models/{quote(folder, safe='')}", members)
        return [
            {
                spelled(entry["name"]): entry
                for entry in (answer if isinstance(answer, list) else ())
                if isinstance(entry, dict) and isinstance(entry.get("name"), str) and spelled(entry["name"]) in shown
            }
            for answer in answers
        ]

    async def _answers_of(self, path: str, members: Iterable[Member] | None = None) -> list[Any]:
        """Each backend's answer, in the order of the pool; one that is down has none."""
        if members is None:
            members = [member for member in self.pool.members.values() if member.health is not Health.DOWN]
        return await asyncio.gather(*(self._ask(member, path) for member in members))

    async def _ask(self, member: Member, path: str) -> Any:
        key = f"{member.key} {path}"
        kept = self._answers.get(key)
        if kept is not None and monotonic_s() - kept[0] < KEPT_S:
            return kept[1]
        try:
            answer = await member.client.get_json(path, self.pool.probe_timeout_s)
        except BackendError:
            answer = kept[1] if kept is not None else None
        self._answers.pop(key, None)
        self._answers[key] = (monotonic_s(), answer)
        while len(self._answers) > KEPT_ANSWERS:
            del self._answers[next(iter(self._answers))]
        return answer
