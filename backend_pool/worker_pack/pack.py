"""The pack's server part as one object: who may talk to it, its one job, its files, what its heartbeats say."""

import asyncio
import hmac
import logging
import threading
import time
import uuid
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from aiohttp import web

from .carried import Carried
from .config import PORT, Config
from .host import Answer, Host, Json
from .shelf import JOBS
from .slot import Busy, Slot
from .wire import PACK_VERSION, PROTOCOL
from .workspace import NotShared, Room, Workspace

log = logging.getLogger("comfyui-cluster-worker")
T = TypeVar("T")

INVENTORY_EVERY_S = 20.0
JUDGE_S = 10.0
"""How long a verdict may take: a node that waits for ever in it must not keep jobs away."""
ENDING_S = 2.0
ENDING_LOOK_S = 0.005
NOBODY = "0" * 8
"""In whose empty directories prompts are judged."""
OFFERS_KEPT = 200
"""Answers about nodes and models that are kept for while a job runs; the oldest go."""


class Pack:
    """Made once per server process; routes, door and heartbeat work with it."""

    def __init__(self, config: Config, host: Host, root: Path, port: int | None = None) -> None:
        self.config = config
        self._port = port
        """Tells the processes of one installation apart; None where there is only one."""
        self.host = host
        self.workspace = Workspace(root, config.shared_data, config.store_mb * 1024 * 1024)
        self.slot = Slot(host, self.workspace)
        self.visitors = 0
        """Prompts of strangers that are being taken: they have passed the door, and are not in the queue yet."""
        self.instance = uuid.uuid4().hex
        self._secret: bytes | None = None
        self._offers: dict[str, tuple[bytes, str]] = {}
        self._inventory: tuple[float, str | None] = (0.0, None)
        self._counting = threading.Lock()
        self._judging = asyncio.Lock()

    # -- who may talk ----------------------------------------------------------------------------------------------

    def learn(self, answer: Json) -> None:
        """Take what the proxy answered to a heartbeat."""
        secret = answer.get("secret")
        if isinstance(secret, str) and secret:
            self._secret = secret.encode()

    def knows(self, given: str | None) -> bool:
        """Whether somebody sent the dispatcher's secret. Nobody does before the proxy has told it."""
        return self._secret is not None and hmac.compare_digest((given or "").encode(), self._secret)

    # -- jobs ------------------------------------------------------------------------------------------------------

    async def submit(self, body: Json) -> Answer:
        """Give a job its directories and queue it; whatever goes wrong, the server's own are back afterwards."""
        order, storage = body["order"], body["storage"]
        prompt_id = str(order["prompt_id"])
        known = self.slot.of(prompt_id)
        if known is not None and known.ended_s is None:
            return Answer(200, {"prompt_id": prompt_id, "number": 0, "node_errors": {}})
        if "inputs" in storage:
            wanted = [entry["sha256"] for entry in storage["inputs"]]
            absent = await aside(self.workspace.store.missing, wanted)
            if absent:
                return Answer(409, {"missing": absent})
        if (before := self.slot.job) is not None:
            await self._through(before.id)
        try:
            async with self._judging:
                self.slot.take()
        except Busy:
            return self._busy()
        try:
            if self._others() or not await self._cleared():
                return self._busy()
            room = await aside(self._room, str(body["user"]), storage)
            job = Carried(prompt_id, order.get("client_id"), room)
            if self._others():  # theirs came while this was prepared
                await aside(self.workspace.remove, room)
                return self._busy()
            self.slot.begin(job)
        except NotShared as error:
            return Answer(409, {"not_shared": str(error)})
        finally:
            self.slot.give_up()
        return await self._queue(job, order)

    async def _cleared(self) -> bool:
        """Whether the last job's files are out of the next one's way."""
        try:
            await aside(self.slot.put_away)
        except OSError as error:
            log.warning("No job is taken: the files of the last one cannot be put away: %s", error)
            return False
        return True

    async def _through(self, prompt_id: str) -> None:
        """Let a job come to its end, not for long: its success is told before its files are handed over."""
        deadline_s = time.monotonic() + ENDING_S
        while self.host.where(prompt_id) == "running" and time.monotonic() < deadline_s:  # noqa: ASYNC110 - no event
            await asyncio.sleep(ENDING_LOOK_S)

    async def judge(self, order: Json) -> Answer:
        """Validate in empty directories: what nodes say of prompts may name what lies there. Not while a job runs."""
        async with self._judging:
            try:
                self.slot.take()
            except Busy:
                return self._busy()
            room = None
            try:
                room = await aside(self.workspace.scratch, NOBODY, [], [])
                if self._others():
                    return self._busy()
                self.host.switch(room.dirs, NOBODY)
                return await asyncio.wait_for(self.host.validate(without_forgeries(order)), JUDGE_S)
            except asyncio.TimeoutError:
                return self._busy()
            finally:
                self.host.restore()
                self.slot.give_up()
                if room is not None:
                    await aside(self.workspace.remove, room)

    async def _queue(self, job: Carried, order: Json) -> Answer:
        try:
            answer = await self.host.submit(without_forgeries(order))
            job.queued = answer.status == 200
            return answer
        finally:
            if not job.queued:
                self.slot.ended(job.id)
                await aside(self.slot.evict, job.id)

    def _room(self, tag: str, storage: Json) -> Room:
        if "folder" in storage:
            return self.workspace.shared(tag, str(storage["folder"]))
        return self.workspace.scratch(tag, storage["inputs"], storage["stubs"])

    def _others(self) -> bool:
        """Whether somebody at ComfyUI's own pages has prompts here, or one on its way into the queue."""
        return self.visitors > 0 or self.host.remaining() > 0

    def _busy(self) -> Answer:
        job = self.slot.job
        return Answer(409, {"busy": job.id if job is not None else None})

    async def forget(self, prompt_id: str) -> bool:
        """Leave nothing of a job that does not run; False when it does."""
        await self._through(prompt_id)
        if self.host.where(prompt_id) == "running":
            return False
        self.host.forget(prompt_id)
        if self.slot.of(prompt_id) is not None:
            self.slot.ended(prompt_id)
            await aside(self.slot.evict, prompt_id)
        return True

    async def offer(self, path: str, ask: Callable[[], Awaitable[web.StreamResponse]]) -> web.StreamResponse:
        """What the server answers about nodes and models; while a user's directories are on, as it was before."""
        if not self.slot.busy:
            response = await ask()
            if isinstance(response, web.Response) and response.status == 200 and not self.slot.busy:
                if isinstance(response.body, bytes):
                    self._offers[path] = (response.body, response.content_type)
                while len(self._offers) > OFFERS_KEPT:
                    del self._offers[next(iter(self._offers))]
            return response
        known = self._offers.get(path)
        if known is None:
            return web.Response(status=503, text="A job runs; ask again when it has ended.")
        return web.Response(body=known[0], content_type=known[1])

    # -- what it says of itself ------------------------------------------------------------------------------------

    def inventory(self) -> str | None:
        """A hash that changes with nodes and models. Blocking; not looked at while a user's models are among them."""
        with self._counting:
            at, known = self._inventory
            if not self.slot.busy and (known is None or time.monotonic() - at >= INVENTORY_EVERY_S):
                found = self.host.inventory()
                if not self.slot.busy:
                    known = found
                    self._inventory = (time.monotonic(), known)
            return known

    def _advertised(self) -> str | None:
        url = self.config.advertise
        return url if url is None or self._port is None else url.replace(PORT, str(self._port))

    def beat(self) -> Json:
        """The body of a heartbeat, each of which has what nobody fetched let go. Blocking."""
        self.slot.tidy()
        return self.description()

    def description(self) -> Json:
        """What this worker is, and does now. Blocking."""
        job = self.slot.job
        return {
            "protocol": PROTOCOL,
            "pack": PACK_VERSION,
            "worker_id": self.config.worker_id if self._port is None else f"{self.config.worker_id}-{self._port}",
            "instance": self.instance,
            "name": self.config.name,
            "url": self._advertised(),
            "open": self.config.open,
            "job": job.id if job is not None and job.ended_s is None else None,
            "queue": self.host.remaining(),
            "shelf": JOBS,
            "inventory": self.inventory(),
            "shared_proof": self.workspace.proof(),
            **self.host.facts(),
        }


def without_forgeries(order: Json) -> Json:
    """An order whose nodes carry no `is_changed`: ComfyUI would trust it, and answer with somebody's old result."""
    nodes = order.get("prompt")
    if not isinstance(nodes, dict):
        return order
    clean = {
        key: {name: value for name, value in node.items() if name != "is_changed"} if isinstance(node, dict) else node
        for key, node in nodes.items()
    }
    return {**order, "prompt": clean}


async def aside(work: Callable[..., T], *arguments: Any) -> T:
    """Run blocking work in a thread."""
    return await asyncio.get_running_loop().run_in_executor(None, partial(work, *arguments))
