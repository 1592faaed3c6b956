"""The worker pack's own calls as seen from here, over the backend's client: only the dispatcher knows the secret."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import IO, Any
from urllib.parse import quote

from aiohttp import ClientResponse

from backend_pool.comfy.answer_body import ANSWER_BYTES, parsed, read_whole
from backend_pool.comfy.client import PLAIN, REFUSALS, ComfyClient, check_plain
from backend_pool.errors import BackendBroken, BackendBusy, BackendRefused, FileGone
from backend_pool.model import JsonDict
from backend_pool.worker_pack.wire import PREFIX

MAX_FILES = 20_000
"""Of one job: more than ten minutes of video as pictures."""


class Unsent(Exception):
    """The worker lacks input files; `hashes` names them."""

    def __init__(self, hashes: list[str]) -> None:
        super().__init__(f"{len(hashes)} input files are missing")
        self.hashes = hashes


class NotShared(Exception):
    """The worker does not see the user's directories."""


class WorkerClient:
    """One worker's."""

    def __init__(self, client: ComfyClient) -> None:
        self._client = client

    async def about(self) -> JsonDict:
        """What it says of itself."""
        found = await self._json("GET", "/about")
        return found if isinstance(found, dict) else {}

    async def missing(self, hashes: list[str]) -> list[str]:
        """Which of these files it does not have."""
        return [
            str(name)
            for name in _listed(await self._json("POST", "/blobs/missing", json={"hashes": hashes}), "missing")
        ]

    async def send(self, name: str, content: IO[bytes]) -> None:
        """Stream an open file into its store; aiohttp reads it in threads."""
        timeout = self._client.transfer_timeout()
        async with self._client.call("PUT", f"{PREFIX}/blobs/{name}", data=content, timeout=timeout) as response:
            if response.status in REFUSALS:
                raise BackendRefused("The worker did not take an input file: it changed while it was sent.", None)
            await _answer(response)

    async def submit(self, order: JsonDict) -> JsonDict:
        """Submit a job. Raises BackendRefused, BackendBusy, Unsent, NotShared; BackendGone means *unsure*."""
        async with self._client.call("POST", f"{PREFIX}/jobs", json=order) as response:
            content = await read_whole(response, ANSWER_BYTES)
            if response.status in REFUSALS:
                raise BackendRefused("The backend refused the prompt.", await parsed(content, response))
            if response.status == 409:
                raise _conflict(await parsed(content, response))
            if response.status >= 400:
                raise BackendBroken(f"{response.url.path} answered {response.status}")
            answer = await parsed(content, response)
        if not isinstance(answer, dict):
            raise BackendBroken(f"{self._client.label}{PREFIX}/jobs answered something that is not an object")
        return answer

    async def files(self, job: str) -> list[JsonDict]:
        """Files that the job wrote and that have to be fetched. FileGone when it does not have the job."""
        async with self._client.call("GET", f"{PREFIX}/jobs/{quote(job, safe='')}/files") as response:
            if response.status == 404:
                raise FileGone("the worker does not have the job's files any more")
            entries = _listed(await _answer(response), "files")
        if len(entries) > MAX_FILES:
            raise FileGone(f"The worker lists more than {MAX_FILES} files of the job")
        return [entry for entry in entries if isinstance(entry, dict)]

    @asynccontextmanager
    async def file(self, job: str, path: str, begin: int, stray: bool = False) -> AsyncIterator[ClientResponse]:
        """One of them as a stream, from a byte on. FileGone for a 4xx, BackendBroken for a 5xx."""
        query, timeout = {"path": path, "from": str(begin)}, self._client.transfer_timeout()
        query |= {"stray": "1"} if stray else {}
        url = f"{PREFIX}/jobs/{quote(job, safe='')}/file"
        async with self._client.call("GET", url, params=query, timeout=timeout, headers=PLAIN) as response:
            if response.status >= 500:
                raise BackendBroken(f"{self._client.label} answered {response.status} for a file")
            if response.status != 200:
                raise FileGone(f"The worker does not have the file {path} any more ({response.status})")
            check_plain(response, path)
            yield response

    async def forget(self, job: str) -> None:
        """Remove all of a job that does not run."""
        async with self._client.call("DELETE", f"{PREFIX}/jobs/{quote(job, safe='')}") as response:
            if response.status >= 500:
                raise BackendBroken(f"{self._client.label} answered {response.status}")

    async def log(self, job: str) -> list[JsonDict]:
        """Lines `{t, m}` of its log while the job ran; FileGone when it does not have the job."""
        async with self._client.call("GET", f"{PREFIX}/jobs/{quote(job, safe='')}/log") as response:
            if response.status == 404:
                raise FileGone("the worker does not have the job any more")
            return [line for line in _listed(await _answer(response), "entries") if isinstance(line, dict)]

    async def validate(self, prompt: JsonDict) -> JsonDict:
        """`node_errors` of a prompt. Raises BackendRefused with ComfyUI's body, BackendBusy while a job runs."""
        async with self._client.call("POST", f"{PREFIX}/validate", json={"prompt": prompt}) as response:
            if response.status in REFUSALS:
                raise BackendRefused(
                    "The backend refuses the prompt.", await parsed(await read_whole(response, ANSWER_BYTES), response)
                )
            answer = await _answer(response)
        if not isinstance(answer, dict):
            raise BackendBroken(f"{self._client.label}{PREFIX}/validate answered something that is not an object")
        return answer

    async def free(self) -> None:
        """Unload models and forget results, soon."""
        await self._json("POST", "/free", json={})

    async def restart(self, *, force: bool = False) -> None:
        """Begin anew in place. Raises BackendBusy while something runs, unless by `force`, which takes that with it."""
        await self._json("POST", "/restart", json={"force": force})

    async def _json(self, method: str, path: str, **options: Any) -> Any:
        async with self._client.call(method, f"{PREFIX}{path}", **options) as response:
            return await _answer(response)


async def _answer(response: ClientResponse) -> Any:
    content = await read_whole(response, ANSWER_BYTES)
    if response.status == 409:
        raise BackendBusy("a job runs there")
    if response.status >= 400:
        raise BackendBroken(f"{response.url.path} answered {response.status}")
    return await parsed(content, response)


def _listed(answer: Any, name: str) -> list[Any]:
    found = answer.get(name) if isinstance(answer, dict) else None
    if not isinstance(found, list):
        raise BackendBroken(f"The worker answered without a list of {name}")
    return found


def _conflict(body: Any) -> Exception:
    given = body if isinstance(body, dict) else {}
    if isinstance(given.get("missing"), list):
        return Unsent([str(name) for name in given["missing"]])
    if "not_shared" in given:
        return NotShared(str(given["not_shared"]))
    return BackendBusy("it has another job")
