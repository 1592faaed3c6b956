"""Uploads to a light session."""

from io import BytesIO
from pathlib import Path
from typing import Any

import aiohttp
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from tests.user_sessions.light.conftest import Running


def form(content: bytes, filename: str = "a.png", **fields: str) -> aiohttp.FormData:
    """The frontend's order: the file first, then the fields."""
    data = aiohttp.FormData(quote_fields=False)
    data.add_field("image", BytesIO(content), filename=filename, content_type="image/png")
    for name, value in fields.items():
        data.add_field(name, value)
    return data


async def send(
    session: Running, content: bytes, filename: str = "a.png", route: str = "/upload/image", **fields: str
) -> tuple[int, Any]:
    """Upload; returns status and JSON."""
    async with session.http.post(route, data=form(content, filename, **fields)) as response:
        return response.status, await response.json()


def png(color: tuple[int, ...], mode: str = "RGB", **text: str) -> bytes:
    """A small picture with text chunks."""
    info = PngInfo()
    for key, value in text.items():
        info.add_text(key, value)
    buffer = BytesIO()
    Image.new(mode, (8, 8), color).save(buffer, "PNG", pnginfo=info)
    return buffer.getvalue()


def files(folder: Path) -> list[str]:
    """Everything below, hidden files too."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
