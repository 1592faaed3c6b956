"""What the pool can do, in ComfyUI's words: object_info, models, embeddings, system_stats.

Nodes are the union over the backends, file lists the user's own. Models come from the backends' own answers, asked at
the same time and kept for a few seconds; a slow backend's last answer stands in. Paths of machines are not shown.
"""

import asyncio
import json
import platform
import sys
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from backend_pool.errors import BackendError
from backend_pool.health import Health
from backend_pool.pool import Member, Pool
from backend_pool.user_files import listing
from proxy.base.clock import monotonic_s
from proxy.comfy_json import ComfyJson
from proxy.comfy_request import identity
from proxy.user_folders import UserFolders
from proxy.user_socket import server_features

KEPT_S = 10.0
KEPT_ANSWERS = 500


@dataclass
class InfoRoutes:
    """Handlers. Answers of backends are kept for KEPT_S seconds, at most KEPT_ANSWERS of them (the oldest goes)."""

    pool: Pool
    folders: UserFolders
    max_upload_mb: int
    _answers: dict[str, tuple[float, Any]] = field(default_factory=dict)

    async def object_info(self, request: Request) -> Response:
        """GET /object_info."""
        document = await run_in_threadpool(self._document, identity(request).slug)
        return Response(document, media_type="application/json")

    async def object_info_one(self, request: Request) -> Response:
        """GET /object_info/{class}: `{}` for an unknown one."""
        name, slug = request.path_params["node_class"], identity(request).slug
        dirs = await run_in_threadpool(self.folders.prepared, slug)
        node = await run_in_threadpool(self.pool.info.node, name, lambda where, kind: listing(dirs, where, kind))
        return ComfyJson(node)

    async def embeddings(self, request: Request) -> Response:
        """GET /embeddings: names over all backends."""
        return ComfyJson(await self._union("/embeddings"))

    async def models(self, request: Request) -> Response:
        """GET /models: folder names over all backends."""
        return ComfyJson(await self._union("/models"))

    async def models_in(self, request: Request) -> Response:
        """GET /models/{folder}: file names over all backends, 404 for a folder none of them has."""
        folder = request.path_params["folder"]
        if folder not in await self._union("/models"):
            return Response(status_code=404)
        return ComfyJson(await self._union(f"/models/{quote(folder, safe='')}"))

    async def experiment_models(self, request: Request) -> Response:
        """GET /experiment/models: folders, without the machines' paths."""
        found = await self._union("/experiment/models")
        names = dict.fromkeys(entry["name"] for entry in found if isinstance(entry, dict) and "name" in entry)
        return ComfyJson([{"name": name, "folders": [f"models/{name}"]} for name in names])

    async def experiment_models_in(self, request: Request) -> Response:
        """GET /experiment/models/{folder}: entries over all backends, each name once."""
        folder = request.path_params["folder"]
        found = await self._union(f"/experiment/models/{quote(folder, safe='')}")
        entries = {entry["name"]: entry for entry in found if isinstance(entry, dict) and "name" in entry}
        return ComfyJson(list(entries.values()))

    async def view_metadata(self, request: Request) -> Response:
        """GET /view_metadata/{folder}?filename=: from the first backend that has the file."""
        folder, name = request.path_params["folder"], request.query_params.get("filename", "")
        path = f"/view_metadata/{quote(folder, safe='')}?filename={quote(name, safe='')}"
        found = next((answer for answer in await self._answers_of(path) if answer is not None), None)
        return Response(status_code=404) if found is None else ComfyJson(found)

    async def system_stats(self, request: Request) -> Response:
        """GET /system_stats: the pool's devices as one machine; no host names, paths or arguments."""
        members = list(self.pool.members.values())
        systems = [member.stats.get("system", {}) for member in members if member.stats]
        version = next((s["comfyui_version"] for s in systems if "comfyui_version" in s), "unknown")
        system: dict[str, Any] = {
            "os": sys.platform,
            "ram_total": sum(int(s.get("ram_total") or 0) for s in systems),
            "ram_free": sum(int(s.get("ram_free") or 0) for s in systems),
            "comfyui_version": version,
            "required_frontend_version": None,
            "installed_templates_version": None,
            "required_templates_version": None,
            "python_version": platform.python_version(),
            "pytorch_version": next((s["pytorch_version"] for s in systems if "pytorch_version" in s), "none"),
            "embedded_python": False,
            "argv": [],
        }
        devices = [
            {**device, "name": f"{member.row.name}: {device.get('name')}"}
            for member in members
            if member.health is Health.UP
            for device in member.stats.get("devices", [])
            if isinstance(device, dict)
        ]
        return ComfyJson({"system": system, "devices": devices})

    def _document(self, slug: str) -> bytes:
        dirs = self.folders.prepared(slug)
        return self.pool.info.document(lambda where, kind: listing(dirs, where, kind))

    async def features(self, request: Request) -> Response:
        """GET /features: what holds from the browser to the pool, as announced on /ws."""
        return ComfyJson(server_features(self.max_upload_mb))

    async def _union(self, path: str) -> list[Any]:
        merged: dict[str, Any] = {}
        for answer in await self._answers_of(path):
            for item in answer if isinstance(answer, list) else ():
                merged.setdefault(json.dumps(item, sort_keys=True), item)
        return list(merged.values())

    async def _answers_of(self, path: str) -> list[Any]:
        """Each backend's answer, in the order of the pool; one that is down has none."""
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
