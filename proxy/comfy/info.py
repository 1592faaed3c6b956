"""What the pool can do, in ComfyUI's words: object_info, system_stats, features.

Nodes are the union over the backends, file lists the user's own. The common part is made once per change of the pool;
per request the user's directories are listed and the few nodes that show them are written. Paths of machines are not
shown.
"""

import platform
import sys
from dataclasses import dataclass
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from backend_pool.backends.health import Health
from backend_pool.backends.pool import Pool
from backend_pool.files.user_models import files_of
from proxy.comfy.json_answer import ComfyJson
from proxy.comfy.packed_answer import packed
from proxy.comfy.request import identity
from proxy.tabs.user_socket import server_features
from proxy.user_folders import UserFolders


@dataclass(frozen=True)
class InfoRoutes:
    """Handlers."""

    pool: Pool
    folders: UserFolders
    max_upload_mb: int

    async def object_info(self, request: Request) -> Response:
        """GET /object_info."""
        return await run_in_threadpool(self._document, request, identity(request).slug)

    async def object_info_one(self, request: Request) -> Response:
        """GET /object_info/{class}: `{}` for an unknown one."""
        return ComfyJson(await run_in_threadpool(self._one, request.path_params["node_class"], identity(request).slug))

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

    async def features(self, request: Request) -> Response:
        """GET /features: what holds from the browser to the pool, as announced on /ws."""
        return ComfyJson(server_features(self.max_upload_mb))

    def _document(self, request: Request, slug: str) -> Response:
        info, files = self.pool.info, files_of(self.folders.prepared(slug))
        return packed(request, info.beginning, info.end(files))

    def _one(self, name: str, slug: str) -> dict[str, Any]:
        return self.pool.info.node(name, files_of(self.folders.prepared(slug)))
