"""What the engine can and is: object_info, models, system_stats, features, logs."""

import asyncio
import sys
from pathlib import Path
from typing import Any

from aiohttp import web

from backend_pool.engine.answers import engine_of
from backend_pool.engine.log_ring import entries
from backend_pool.engine.models import FOLDERS, MB

routes = web.RouteTableDef()
internal = web.RouteTableDef()

COMFYUI_VERSION = "0.8.0"
"""Whose protocol this engine speaks."""


@routes.get("/object_info")
async def object_info(request: web.Request) -> web.Response:
    """All nodes."""
    return web.json_response(await asyncio.to_thread(engine_of(request).catalogue.object_info))


@routes.get("/object_info/{name}")
async def object_info_of(request: web.Request) -> web.Response:
    """One node, or `{}`."""
    return web.json_response(await asyncio.to_thread(engine_of(request).catalogue.one, request.match_info["name"]))


@routes.get("/embeddings")
async def embeddings(request: web.Request) -> web.Response:
    """Embedding names without their endings."""
    names = await asyncio.to_thread(engine_of(request).models.names, "embeddings")
    return web.json_response([str(Path(name).with_suffix("")) for name in names])


@routes.get("/models")
async def model_folders(_request: web.Request) -> web.Response:
    """Folder names."""
    return web.json_response([*FOLDERS, "configs", "custom_nodes"])


@routes.get("/models/{folder}")
async def models(request: web.Request) -> web.Response:
    """File names of a folder."""
    folder = request.match_info["folder"]
    if folder not in (*FOLDERS, "configs", "custom_nodes"):
        return web.Response(status=404)
    return web.json_response(await asyncio.to_thread(engine_of(request).models.names, folder))


@routes.get("/experiment/models")
async def model_paths(request: web.Request) -> web.Response:
    """Folders and where they are."""
    root = engine_of(request).directories.models
    return web.json_response([{"name": folder, "folders": [str(root / folder)]} for folder in FOLDERS])


@routes.get("/experiment/models/{folder}")
async def model_files(request: web.Request) -> web.Response:
    """Files of a folder with size and times."""
    folder = request.match_info["folder"]
    if folder not in FOLDERS:
        return web.Response(status=404)
    return web.json_response(await asyncio.to_thread(engine_of(request).models.files, folder))


@routes.get("/experiment/models/preview/{folder}/{index}/{file:.*}")
async def model_preview(request: web.Request) -> web.Response:
    """The picture beside a model file, `NAME.png` or `NAME.preview.png`, as WebP."""
    models, info = engine_of(request).models, request.match_info
    found = await asyncio.to_thread(models.preview, info["folder"], info["file"])
    return web.Response(status=404) if found is None else web.Response(body=found, content_type="image/webp")


@routes.get("/view_metadata/{folder}")
async def view_metadata(request: web.Request) -> web.Response:
    """`__metadata__` of a safetensors file."""
    folder, name = request.match_info["folder"], request.query.get("filename", "")
    if folder not in FOLDERS or not name.endswith(".safetensors"):
        return web.Response(status=404)
    found = await asyncio.to_thread(engine_of(request).models.metadata, folder, name)
    return web.Response(status=404) if found is None else web.json_response(found)


@routes.get("/features")
async def features(request: web.Request) -> web.Response:
    """Feature flags, the same as in the WebSocket's answer."""
    return web.json_response(feature_flags(engine_of(request).options.max_upload_mb))


@routes.get("/system_stats")
async def system_stats(request: web.Request) -> web.Response:
    """ComfyUI's fields; the device says that it is none."""
    engine = engine_of(request)
    memory = await asyncio.to_thread(_memory)
    total = engine.models.vram_mb * MB
    used = min(total, sum(engine.models.loaded().values()) * MB)
    system = {
        "os": sys.platform,
        "ram_total": memory.get("MemTotal", 0),
        "ram_free": memory.get("MemAvailable", 0),
        "comfyui_version": COMFYUI_VERSION,
        "required_frontend_version": None,
        "installed_templates_version": None,
        "required_templates_version": None,
        "python_version": sys.version,
        "pytorch_version": "none (embedded engine)",
        "embedded_python": False,
        "argv": ["backend_pool.engine", "--name", engine.options.name],
    }
    device = {
        "name": f"{engine.options.name}: embedded engine, no GPU and no model",
        "type": "cpu",
        "index": 0,
        "vram_total": total,
        "vram_free": total - used,
        "torch_vram_total": total,
        "torch_vram_free": total - used,
    }
    return web.json_response({"system": system, "devices": [device]})


@internal.get("/logs")
async def logs(_request: web.Request) -> web.Response:
    """The latest log lines as one string."""
    return web.json_response("".join(f"{entry['t']} - {entry['m']}" for entry in entries()))


@internal.get("/logs/raw")
async def raw_logs(_request: web.Request) -> web.Response:
    """The latest log lines."""
    return web.json_response({"entries": entries(), "size": {"cols": 80, "rows": 24}})


@internal.get("/folder_paths")
async def folder_paths(request: web.Request) -> web.Response:
    """Where model folders are."""
    root = engine_of(request).directories.models
    return web.json_response({folder: [str(root / folder)] for folder in FOLDERS})


@internal.get("/files/{kind}")
async def files(request: web.Request) -> web.Response:
    """Names directly in input, output or temp, newest first."""
    folder = engine_of(request).directories.of(request.match_info["kind"])
    if folder is None:
        return web.json_response({"error": "Invalid directory type"}, status=400)
    return web.json_response(await asyncio.to_thread(_newest_first, folder))


def feature_flags(max_upload_mb: int) -> dict[str, Any]:
    """What the server can do, for clients that negotiate."""
    return {
        "supports_preview_metadata": True,
        "max_upload_size": max_upload_mb * MB,
        "extension": {"manager": {"supports_v4": True}},
    }


def _newest_first(folder: Path) -> list[str]:
    found = [(entry.stat().st_mtime, entry.name) for entry in folder.iterdir() if entry.is_file()]
    return [name for _, name in sorted(found, reverse=True) if not name.startswith(".")]


def _memory() -> dict[str, int]:
    """/proc/meminfo in bytes; empty where there is none."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return {}
    return {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines if line.endswith("kB")}
