"""ComfyUI's /queue, /history, /interrupt and /free, for one user alone (server.py, protocol §1 and §3)."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response

from backend_pool.job_state import FINAL, JobState
from backend_pool.jobs.queries import JobQueries, Listed, Window
from backend_pool.jobs.store import JobStore
from backend_pool.model import Job, JobDocument
from proxy.base.errors import BadInput
from proxy.base.settings import Settings
from proxy.comfy.json_answer import ComfyJson, dumps
from proxy.comfy.request import NotJson, identity, ids, read_command
from proxy.comfy.shapes import history_entry, queue_item
from proxy.comfy.stream import entries, response
from proxy.job_control import Jobs


@dataclass(frozen=True)
class QueueRoutes:
    """Handlers; each sees only the sender's own jobs."""

    queries: JobQueries
    store: JobStore
    jobs: Jobs
    settings: Settings

    async def queue(self, request: Request) -> Response:
        """GET: what runs (at most one, client demands B4) and what waits."""
        # Who runs is settled by one look: what begins while the answer is under way must not fall between the lists.
        active = await self.queries.active(identity(request).user_id)

        async def pieces() -> AsyncIterator[bytes]:
            yield b'{"queue_running":['
            async for piece in self._items([job for job in active if job.state is not JobState.QUEUED]):
                yield piece
            yield b'],"queue_pending":['
            async for piece in self._items([job for job in active if job.state is JobState.QUEUED]):
                yield piece
            yield b"]}"

        return await response(pieces())

    def _items(self, listed: Sequence[Listed]) -> AsyncIterator[bytes]:
        return entries(self.queries, listed, lambda job, document: dumps(queue_item(job, document)))

    async def change_queue(self, request: Request) -> Response:
        """POST: `{"clear": true}` or `{"delete": [ids]}`, waiting jobs only."""
        body = await read_command(request, self.settings)
        user_id = identity(request).user_id
        if body.get("clear"):
            await self.jobs.remove_waiting(user_id, None)
        if "delete" in body:
            await self.jobs.remove_waiting(user_id, ids(body, "delete"))
        return Response()

    async def history(self, request: Request) -> Response:
        """GET: finished prompts by id, oldest first; `max_items` alone gives the last ones."""
        limit, skip = _number(request, "max_items"), _number(request, "offset")
        window = Window(limit, skip if skip is not None and skip >= 0 else (None if limit is not None else 0))
        listed = await self.queries.history(identity(request).user_id, window)

        async def pieces() -> AsyncIterator[bytes]:
            yield b"{"
            async for piece in entries(self.queries, listed, _history_pair):
                yield piece
            yield b"}"

        return await response(pieces())

    async def history_one(self, request: Request) -> Response:
        """GET /history/{id}: `{}` for an unknown one."""
        found = await self.queries.one(identity(request).user_id, request.path_params["prompt_id"])
        if found is None or found[0].state not in FINAL:
            return ComfyJson({})
        return ComfyJson({found[0].prompt_id: history_entry(*found)})

    async def change_history(self, request: Request) -> Response:
        """POST: `{"clear": true}` or `{"delete": [ids]}`. Files stay."""
        body = await read_command(request, self.settings)
        user_id = identity(request).user_id
        if body.get("clear"):
            await self.store.forget(user_id, None)
        if "delete" in body:
            await self.store.forget(user_id, ids(body, "delete"))
        return Response()

    async def interrupt(self, request: Request) -> Response:
        """POST: the sender's running job, or only the one named; others' are never touched."""
        try:
            body = await read_command(request, self.settings)
        except NotJson:  # as in ComfyUI; programs press this button with whatever their library sends
            body = {}
        wanted = body.get("prompt_id")
        await self.jobs.interrupt(identity(request).user_id, [str(wanted)] if wanted else None)
        return Response()

    async def free(self, request: Request) -> Response:
        """POST: accepted and not passed on. It would unload everybody's models (protocol §8.21)."""
        await read_command(request, self.settings)
        return Response()


def _history_pair(job: Job, document: JobDocument) -> str:
    return f"{dumps(job.prompt_id)}:{dumps(history_entry(job, document))}"


def _number(request: Request, name: str) -> int | None:
    text = request.query_params.get(name)
    if text is None:
        return None
    try:
        return max(-1, min(int(text), 2**31))
    except ValueError as error:
        raise BadInput(f"{name} must be a whole number.") from error
