"""`/internal/*`: the WebUI's terminal, folder names and file lists. No `/api` twin, as in ComfyUI.

ComfyUI tells absolute host paths here; this tells where a thing is relative to the installation.
"""

import asyncio
import contextlib
import os
from pathlib import Path

from aiohttp import web

from proxy.base.errors import BadInput
from user_sessions.light.answers import json_body
from user_sessions.light.files import Areas
from user_sessions.light.logs import TERMINAL, LogRing
from user_sessions.light.socket import Sockets

FOLDERS: dict[str, list[str]] = {
    **{
        name: [f"models/{name}"]
        for name in (
            *("checkpoints", "configs", "loras", "vae", "clip_vision", "style_models", "embeddings", "diffusers"),
            *("vae_approx", "gligen", "upscale_models", "latent_upscale_models", "hypernetworks", "photomaker"),
            *("classifiers", "model_patches", "audio_encoders"),
        )
    },
    "text_encoders": ["models/text_encoders", "models/clip"],
    "diffusion_models": ["models/unet", "models/diffusion_models"],
    "controlnet": ["models/controlnet", "models/t2i_adapter"],
    "custom_nodes": ["custom_nodes"],
}
"""ComfyUI's model folders and where a standard installation has them."""


class Internal:
    """The internal routes."""

    def __init__(self, areas: Areas, public: Path, ring: LogRing, sockets: Sockets) -> None:
        self._areas = areas
        self._models = public / "models"
        self._ring = ring
        self._sockets = sockets

    def routes(self) -> list[web.RouteDef]:
        """Complete paths."""
        return [
            web.get("/internal/logs", self._logs),
            web.get("/internal/logs/raw", self._raw_logs),
            web.patch("/internal/logs/subscribe", self._subscribe),
            web.get("/internal/folder_paths", self._folders),
            web.get("/internal/files/{area}", self._files),
        ]

    async def _logs(self, request: web.Request) -> web.Response:
        return web.json_response(self._ring.text())

    async def _raw_logs(self, request: web.Request) -> web.Response:
        return web.json_response({"entries": list(self._ring.entries), "size": TERMINAL})

    async def _subscribe(self, request: web.Request) -> web.Response:
        wish = await json_body(request)
        if not isinstance(wish, dict) or not isinstance(wish.get("clientId"), str) or "enabled" not in wish:
            raise BadInput("Send {clientId, enabled}.")
        self._sockets.subscribe(wish["clientId"], bool(wish["enabled"]))
        return web.Response()

    async def _folders(self, request: web.Request) -> web.Response:
        own = await asyncio.to_thread(_names, self._models)
        return web.json_response({name: [f"models/{name}"] for name in own} | FOLDERS)

    async def _files(self, request: web.Request) -> web.Response:
        area = request.match_info["area"]
        root = self._areas.root(area)
        if root is None:
            return web.json_response({"error": "Invalid directory type"}, status=400)
        names = await asyncio.to_thread(_newest_first, root)
        shared = self._areas.shared(area)
        if shared is not None:
            names += await asyncio.to_thread(_newest_first, shared)
        return web.json_response(list(dict.fromkeys(names)))


def _names(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
    except OSError:
        return []


def _newest_first(folder: Path) -> list[str]:
    found: list[tuple[float, str]] = []
    with contextlib.suppress(OSError), os.scandir(folder) as entries:  # an operator need not have the public folder
        for entry in entries:
            with contextlib.suppress(OSError):  # vanished meanwhile
                if entry.is_file() and not entry.name.startswith("."):
                    found.append((-entry.stat().st_mtime, entry.name))
    return [name for _, name in sorted(found)]
