"""The pack's own HTTP routes. All demand the dispatcher's secret; a job's answers have ComfyUI's shapes."""

import asyncio
import json
import os
from collections.abc import Callable
from functools import partial
from typing import IO, Any

from aiohttp import web

from .carried import Carried
from .files import BadPath
from .host import Answer, Json
from .pack import Pack, aside
from .wire import PREFIX, SECRET_HEADER

CHUNK = 256 * 1024
LARGEST_ORDER = 256 * 1024 * 1024
"""Bytes of a prompt with all that belongs to it; the proxy's own limit for prompts (`max_prompt_mb`) is far below."""
ANSWER_FIRST_S = 0.1
PROMPTS = ("/prompt", "/api/prompt")
OFFERS = ("/object_info", "/models", "/embeddings", "/experiment/models")
"""What tells of nodes and models, and with them of the files of whoever has the directories."""


def door(pack: Pack) -> Any:
    """A middleware: the pack's routes for the dispatcher alone; ComfyUI's too, unless the operator left them open."""

    @web.middleware
    async def check(request: web.Request, handler: Any) -> web.StreamResponse:
        if pack.knows(request.headers.get(SECRET_HEADER)):
            if request.method == "GET" and request.path.startswith(OFFERS):
                return await pack.offer(request.path_qs, lambda: _called(handler, request))
            return await _called(handler, request)
        if not pack.config.open or request.path.startswith(PREFIX):
            return _error(401, "This ComfyUI works for a cluster and answers to its dispatcher only.")
        if pack.slot.busy:
            return _error(423, "A job of the cluster runs here. Try again when it has ended.")
        if request.method != "POST" or request.path not in PROMPTS:
            return await _called(handler, request)
        pack.visitors += 1
        try:
            return await _called(handler, request)
        finally:
            pack.visitors -= 1

    return check


async def _called(handler: Any, request: web.Request) -> web.StreamResponse:
    response: web.StreamResponse = await handler(request)
    return response


class Routes:
    """Handlers over a pack."""

    def __init__(self, pack: Pack) -> None:
        self._pack = pack

    def add_to(self, router: web.UrlDispatcher) -> None:
        """Register them all."""
        get, post, put, delete = router.add_get, router.add_post, router.add_put, router.add_delete
        get(f"{PREFIX}/about", self.about)
        post(f"{PREFIX}/blobs/missing", self.missing)
        put(f"{PREFIX}/blobs/{{name}}", self.receive)
        post(f"{PREFIX}/jobs", self.submit)
        get(f"{PREFIX}/jobs/{{id}}/files", self.files)
        get(f"{PREFIX}/jobs/{{id}}/file", self.file)
        get(f"{PREFIX}/jobs/{{id}}/log", self.log)
        delete(f"{PREFIX}/jobs/{{id}}", self.forget)
        post(f"{PREFIX}/validate", self.validate)
        post(f"{PREFIX}/free", self.free)
        post(f"{PREFIX}/restart", self.restart)

    async def about(self, _request: web.Request) -> web.Response:
        """What a heartbeat says."""
        return web.json_response(await aside(self._pack.description))

    async def missing(self, request: web.Request) -> web.Response:
        """Which files of a list of hashes are still to be sent."""
        try:
            hashes = [str(name) for name in (await request.json())["hashes"]]
            return web.json_response({"missing": await aside(self._pack.workspace.store.missing, hashes)})
        except (ValueError, KeyError, TypeError):
            return _error(400, "Send {hashes: [SHA-256, ...]}.")

    async def receive(self, request: web.Request) -> web.Response:
        """Store one input file, streamed."""
        store = self._pack.workspace.store
        try:
            incoming = await aside(store.begin, request.match_info["name"])
        except ValueError:
            return _error(400, "The name has to be a SHA-256.")
        try:
            async for chunk in request.content.iter_chunked(CHUNK):
                await aside(incoming.write, chunk)
            whole = await aside(incoming.finish)
        except OSError as error:
            if isinstance(error, ConnectionError):
                raise
            return _error(507, f"This worker cannot store the file: {error.strerror or error}")
        finally:
            await aside(incoming.close)
        await aside(store.shrink)
        return web.json_response({}) if whole else _error(400, "The content is not what its name says.")

    async def submit(self, request: web.Request) -> web.Response:
        """Switch to a job's directories, validate, queue."""
        try:
            body = json.loads(await _whole(request))
            answer = await self._pack.submit(body)
        except (KeyError, TypeError, BadPath, json.JSONDecodeError) as error:
            return _error(400, f"The order is not complete: {error!r}")
        return _said(answer)

    async def files(self, request: web.Request) -> web.Response:
        """What the job wrote so far."""
        job = self._job(request)
        return web.json_response({"files": await aside(self._pack.slot.files, job)})

    async def file(self, request: web.Request) -> web.StreamResponse:
        """One of them, from `?from=` on."""
        job = self._job(request)
        stray, name = "stray" in request.query, request.query.get("path", "")
        try:
            begin = max(0, int(request.query.get("from", "0")))
            content = await aside(partial(self._pack.slot.open, job, name, stray=stray))
        except ValueError:
            return _error(400, "There is no such path.")
        if content is None:
            return _error(404, "There is no such file.")
        try:
            return await _sent(request, content, begin, job.touch)
        finally:
            await aside(content.close)

    async def log(self, request: web.Request) -> web.Response:
        """The server's log while the job ran."""
        job = self._job(request)
        return web.json_response({"entries": self._pack.host.log_lines(job.since_s, job.ended_s)})

    async def forget(self, request: web.Request) -> web.Response:
        """Remove the job, its history entry and its files."""
        if not await self._pack.forget(request.match_info["id"]):
            return _error(409, "It runs.")
        return web.json_response({})

    async def validate(self, request: web.Request) -> web.Response:
        """Judge a prompt without running it."""
        try:
            return _said(await self._pack.judge(json.loads(await _whole(request))))
        except (KeyError, TypeError, json.JSONDecodeError) as error:
            return _error(400, f"The order is not complete: {error!r}")

    async def free(self, _request: web.Request) -> web.Response:
        """Unload models, forget results."""
        self._pack.host.free()
        return web.json_response({})

    async def restart(self, request: web.Request) -> web.Response:
        """Begin anew in place; refused while something runs, unless by `force`: a job that hangs never ends."""
        try:
            order = json.loads(await _whole(request) or b"{}")
        except json.JSONDecodeError as error:
            return _error(400, f"The order is not JSON: {error!r}")
        forced = isinstance(order, dict) and order.get("force") is True
        if not forced and (self._pack.slot.busy or self._pack.host.remaining()):
            return _error(409, "A job runs here.")
        asyncio.get_running_loop().call_later(ANSWER_FIRST_S, self._pack.host.restart)
        return web.json_response({})

    def _job(self, request: web.Request) -> Carried:
        job = self._pack.slot.of(request.match_info["id"])
        if job is None:
            raise web.HTTPNotFound(text="This worker does not have the job.")
        return job


async def _whole(request: web.Request) -> bytes:
    """A body, larger than the server's own limit, which is for uploads of strangers. 413 for one beyond all reason."""
    chunks, size = [], 0
    async for chunk in request.content.iter_chunked(CHUNK):
        size += len(chunk)
        if size > LARGEST_ORDER:
            raise web.HTTPRequestEntityTooLarge(LARGEST_ORDER, size)
        chunks.append(chunk)
    return b"".join(chunks)


async def _sent(request: web.Request, content: IO[bytes], begin: int, touch: Callable[[], None]) -> web.StreamResponse:
    """The file from there on, as long as it was when this began; `touch` is called now and then."""
    end = max(begin, os.fstat(content.fileno()).st_size)
    response = web.StreamResponse(headers={"Content-Length": str(end - begin)})
    await response.prepare(request)
    while begin < end:
        chunk = await aside(os.pread, content.fileno(), min(CHUNK, end - begin), begin)
        if not chunk:
            break
        await response.write(chunk)
        touch()
        begin += len(chunk)
    await response.write_eof()
    return response


def _said(answer: Answer) -> web.Response:
    return web.json_response(answer.body, status=answer.status)


def _error(status: int, message: str) -> web.Response:
    body: Json = {"error": {"type": "cluster_worker", "message": message, "details": "", "extra_info": {}}}
    return web.json_response(body, status=status)
