"""/view and /upload: reading and writing files of input, output and temp."""

import asyncio
import json
import mimetypes
import os
from pathlib import Path
from typing import Any

from aiohttp import web
from aiohttp.web_request import FileField

from backend_pool.engine.answers import engine_of
from backend_pool.engine.faults import Fault
from backend_pool.engine.files import KINDS, OutsideDirectory, annotated, inside
from backend_pool.engine.uploads import Upload, merge_mask, save_upload
from backend_pool.engine.views import channel_png, preview_of

routes = web.RouteTableDef()

DOWNLOADED = ("text/html", "text/html-sandboxed", "application/xhtml+xml", "text/javascript", "text/css")
SLOW_CHUNK = 256


@routes.get("/view")
async def view(request: web.Request) -> web.StreamResponse:
    """A file, a preview of it, or one of its channels."""
    found = _find(request)
    if isinstance(found, int):
        return web.Response(status=found)
    disposition = {"Content-Disposition": f'filename="{found.name}"'}
    channel = request.query.get("channel", "")
    try:
        if "preview" in request.query:
            kind, body = await asyncio.to_thread(preview_of, found, request.query["preview"], channel)
            return web.Response(body=body, content_type=kind, headers=disposition)
        if channel in ("rgb", "a"):
            body = await asyncio.to_thread(channel_png, found, channel)
            return web.Response(body=body, content_type="image/png", headers=disposition)
    except (OSError, ValueError, SyntaxError):  # not a picture
        return web.Response(status=400)
    fault = engine_of(request).faults.take("slow_view", "truncate_view")
    if fault is not None:
        return await _broken(request, found, fault)
    content_type = mimetypes.guess_type(found.name)[0] or "application/octet-stream"
    if content_type in DOWNLOADED:
        content_type = "application/octet-stream"
    return web.FileResponse(found, headers=disposition | {"Content-Type": content_type})


@routes.post("/upload/image")
async def upload_image(request: web.Request) -> web.Response:
    """Store a file; without `overwrite` a taken name gets a number unless the content is the same."""
    upload = await _upload(request)
    if upload is None:
        return web.Response(status=400)
    size = upload.file.seek(0, os.SEEK_END)
    upload.file.seek(0)
    fault = engine_of(request).faults.take("slow_upload") if size else None
    if fault is not None:
        await asyncio.sleep(size / fault.bytes_per_s)
    name = await asyncio.to_thread(save_upload, upload)
    return web.json_response({"name": name, "subfolder": upload.subfolder, "type": upload.kind})


@routes.post("/upload/mask")
async def upload_mask(request: web.Request) -> web.Response:
    """Store the original of `original_ref` with the alpha of the uploaded picture."""
    upload = await _upload(request)
    post = await request.post()
    try:
        reference: Any = json.loads(str(post.get("original_ref")))
        query = {key: str(value) for key, value in reference.items()}
    except (ValueError, AttributeError, RecursionError):
        return web.Response(status=400)
    original = _locate(request, query)
    if upload is None or isinstance(original, int):
        return web.Response(status=original if isinstance(original, int) else 400)
    try:
        name = await asyncio.to_thread(merge_mask, upload, original)
    except (OSError, ValueError, SyntaxError):
        return web.Response(status=400)
    return web.json_response({"name": name, "subfolder": upload.subfolder, "type": upload.kind})


def _find(request: web.Request) -> Path | int:
    return _locate(request, dict(request.query)) if "filename" in request.query else 404


def _locate(request: web.Request, query: dict[str, str]) -> Path | int:
    """The file that filename, type and subfolder name, or the status ComfyUI refuses them with."""
    name, kind = annotated(query.get("filename", ""))
    folder = engine_of(request).directories.of(kind or query.get("type", "output"))
    if not name or name.startswith("/") or ".." in name or folder is None:
        return 400
    try:
        if query.get("subfolder"):
            folder = inside(folder, query["subfolder"])
        path = inside(folder, Path(name).name)
        return path if path.is_file() else 404
    except OutsideDirectory:
        return 403
    except (OSError, ValueError):  # too long, a null byte
        return 404


async def _upload(request: web.Request) -> Upload | None:
    post = await request.post()
    image, kind, subfolder = post.get("image"), str(post.get("type", "input")), str(post.get("subfolder", ""))
    if not isinstance(image, FileField) or not image.filename or kind not in KINDS:
        return None
    root = engine_of(request).directories.root(kind)
    try:
        folder = inside(root, subfolder)
        target = inside(root, str(Path(subfolder) / image.filename))
    except (OutsideDirectory, ValueError, OSError):
        return None
    if target == folder:
        return None
    overwrite = str(post.get("overwrite", "")) in ("true", "1")
    return Upload(image.file, folder, image.filename, kind, subfolder, overwrite)


async def _broken(request: web.Request, path: Path, fault: Fault) -> web.StreamResponse:
    """A download that trickles, or ends before its announced length."""
    content = await asyncio.to_thread(path.read_bytes)
    response = web.StreamResponse(headers={"Content-Length": str(len(content))})
    await response.prepare(request)
    if fault.fault == "truncate_view":
        await response.write(content[: len(content) // 2])
        if request.transport is not None:
            request.transport.close()
        return response
    for start in range(0, len(content), SLOW_CHUNK):
        chunk = content[start : start + SLOW_CHUNK]
        await response.write(chunk)
        await asyncio.sleep(len(chunk) / fault.bytes_per_s)
    await response.write_eof()
    return response
