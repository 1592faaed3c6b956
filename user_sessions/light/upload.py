"""`POST /upload/image` and `/upload/mask`: ComfyUI's multipart form, streamed to disk and never over another's file.

ComfyUI keeps the name as sent, reuses an existing file of equal content and else takes `name (1).ext`; `overwrite`
replaces. It ignores what goes wrong inside a mask upload and answers 200 without a file; here that is an error.
"""

import asyncio
import os
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import BodyPartReader, hdrs, web
from aiohttp.http_exceptions import HttpProcessingError

from proxy.base.errors import BadInput, Conflict, Forbidden, TooLarge
from user_sessions.light.files import Areas, inside
from user_sessions.light.mask import apply_mask, original_of
from user_sessions.light.spool import Spool, too_large

FIELD_BYTES = 64 * 1024
FORM_PARTS = 32
NAMES_TRIED = 10_000
CHUNK_BYTES = 256 * 1024


@dataclass
class Form:
    """An upload as received: its text fields, and the file under a hidden name."""

    fields: dict[str, str] = field(default_factory=dict)
    filename: str = ""
    spool: Spool | None = None

    @property
    def overwrite(self) -> bool:
        """As ComfyUI reads it."""
        return self.fields.get("overwrite") in {"true", "1"}


class Upload:
    """The upload routes on a user's areas."""

    def __init__(self, areas: Areas, limit_bytes: int, drawing: asyncio.Semaphore) -> None:
        self._areas = areas
        self._limit = limit_bytes
        self._drawing = drawing

    def routes(self) -> list[web.RouteDef]:
        """Bare paths; the application adds the `/api` twins."""
        return [web.post("/upload/image", self._image), web.post("/upload/mask", self._mask)]

    async def _image(self, request: web.Request) -> web.Response:
        async with AsyncExitStack() as stack:
            form = await self._receive(request, stack)
            return await self._place(form, _file_of(form))

    async def _mask(self, request: web.Request) -> web.Response:
        async with AsyncExitStack() as stack:
            form = await self._receive(request, stack)
            mask = _file_of(form)
            original = original_of(form.fields.get("original_ref"), self._areas)
            merged = await stack.enter_async_context(Spool(self._spool_directory(), self._limit))
            async with self._drawing:
                picture = await asyncio.to_thread(apply_mask, original, mask.path)
            await merged.write(picture)
            await merged.finish()
            return await self._place(form, merged)

    def _spool_directory(self) -> Path:
        directory = self._areas.root("input")
        assert directory is not None
        return directory

    async def _receive(self, request: web.Request, stack: AsyncExitStack) -> Form:
        """Read the form. Raises BadInput, TooLarge, and OSError when the disk refuses."""
        if (request.content_length or 0) > self._limit:
            raise too_large(self._limit)
        if not request.content_type.startswith("multipart/"):
            raise BadInput("Send a multipart form with the field `image`.")
        form = Form()
        try:
            reader = await request.multipart()
            for _ in range(FORM_PARTS):
                part = await reader.next()
                if part is None:
                    return form
                if not isinstance(part, BodyPartReader) or hdrs.CONTENT_TRANSFER_ENCODING in part.headers:
                    raise BadInput("Nested or encoded form parts are not read here.")
                await self._part(part, form, stack)
        except (ValueError, AssertionError, RuntimeError, HttpProcessingError) as error:
            raise BadInput("The form is malformed.", str(error)[:200]) from error
        raise BadInput(f"The form has more than {FORM_PARTS} parts.")

    async def _part(self, part: BodyPartReader, form: Form, stack: AsyncExitStack) -> None:
        if part.name != "image" or form.spool is not None:
            if part.filename is None and part.name:
                form.fields.setdefault(part.name, await _text(part))
            else:
                await part.release()
            return
        if not part.filename:
            raise BadInput("The file has no name.")
        form.filename = part.filename
        spool = await stack.enter_async_context(Spool(self._spool_directory(), self._limit))
        while chunk := await part.read_chunk(CHUNK_BYTES):
            await spool.write(chunk)
        await spool.finish()
        form.spool = spool

    async def _place(self, form: Form, spool: Spool) -> web.Response:
        area = form.fields.get("type") or "input"
        subfolder = form.fields.get("subfolder", "")
        root = self._areas.root(area)
        if root is None:
            raise BadInput(f"`{area[:40]}` is not a type of file. Use input, output or temp.")
        if Path(form.filename).name in {"", ".", ".."}:
            raise BadInput("This is not a usable file name.")
        try:
            folder = inside(root, subfolder)
            target = inside(root, subfolder, form.filename)
        except Forbidden as error:  # ComfyUI answers 400 here, 403 only to /view
            raise BadInput(error.message) from error
        _refuse_working_names(target.relative_to(root), Path(form.filename))
        name = await asyncio.to_thread(_give_name, spool, folder, form.filename, form.overwrite)
        return web.json_response({"name": name, "subfolder": subfolder, "type": area})


def _file_of(form: Form) -> Spool:
    if form.spool is None:
        raise BadInput("The form has no file in the field `image`.")
    return form.spool


def _refuse_working_names(*paths: Path) -> None:
    """The proxy's own begin with a dot: uploads under way, results that arrive."""
    if any(part.startswith(".") and part != ".." for path in paths for part in path.parts):
        raise BadInput("Names of files and folders must not begin with a dot.")


async def _text(part: BodyPartReader) -> str:
    """A text field, bounded."""
    data = b""
    while chunk := await part.read_chunk():
        data += chunk
        if len(data) > FIELD_BYTES:
            raise TooLarge(f"The form field {part.name} is too long.")
    return data.decode()


def _give_name(spool: Spool, folder: Path, filename: str, overwrite: bool) -> str:
    """Place the file; returns the name it has now. Blocking."""
    target = folder / filename
    if target.is_dir():
        raise BadInput("This name belongs to a folder.")
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if overwrite:
        spool.place_over(target)
        return filename
    stem, extension = os.path.splitext(filename)  # noqa: PTH122 - a name, which may hold a folder
    for number in range(NAMES_TRIED):
        name = f"{stem} ({number}){extension}" if number else filename
        if spool.place_new(folder / name) or spool.same_as(folder / name):
            return name
    raise Conflict("Too many files have this name. Rename the file.")
