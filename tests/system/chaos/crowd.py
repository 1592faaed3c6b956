"""Users of the trial: each queues jobs over HTTP, listens on a socket, and comes back whenever the proxy was gone.

They note what they were promised (`accepted`) and what they were told; `verdict` judges it.
"""

import asyncio
import contextlib
import io
import random
import socket
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from PIL import Image

from proxy.base.clock import now_ms
from tests.cluster import Person
from tests.contract.wire import PREVIEW_WITH_METADATA, Frame, preview_metadata
from tests.system.chaos.orders import SIDE, UPLOAD, Order, orders, own_colour

PAUSE_S = 0.1
ANSWER_S = 15.0
SESSION_USE = 0.25
"""How often a user asks the session for something beside queueing."""
AWAY = {500, 502, 503, 504, 507}
"""What a proxy says that starts, ends or has lost its session host: come again."""
GONE = (aiohttp.ClientError, TimeoutError, ConnectionError)


@dataclass
class Told:
    """What one connection of a user's tab heard."""

    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    strange: set[str] = field(default_factory=set)
    opened_ms: int = 0
    closed_ms: int | None = None
    """None while it is open."""


class Player:
    """One user. `play` and `listen` run until they are cancelled; `gate` shut means: queue nothing new."""

    def __init__(self, url: str, person: Person, number: int, seed: int, gate: asyncio.Event) -> None:
        self.person = person
        self.number = number
        self.accepted: dict[str, Order] = {}
        self.unsure: set[str] = set()
        self.cancelled: set[str] = set()
        self.refusals: list[str] = []
        self.told: list[Told] = []
        self.busy = True
        """Not waiting at the gate: it may queue something yet."""
        self.listening = False
        self._orders = orders(number, seed)
        self._chance = random.Random(f"pauses/{seed}/{number}")
        self._url = f"{url}/t/{person.token}"
        self._gate = gate
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        self._http = aiohttp.ClientSession(trust_env=False, timeout=aiohttp.ClientTimeout(total=ANSWER_S))

    async def close(self) -> None:
        """End its connections."""
        await self._http.close()

    async def play(self) -> None:
        """Upload the one input, then queue without end, a few at once, and cancel some."""
        await self._upload()
        while True:
            self.busy = False
            await self._gate.wait()
            self.busy = True
            for _ in range(self._chance.randrange(1, 4)):
                await self.queue(next(self._orders))
            if self._chance.random() < SESSION_USE:
                await self._use_session()
            while await self._waiting() > 1:
                await asyncio.sleep(PAUSE_S * 3)
            await asyncio.sleep(self._chance.uniform(0.0, 0.6))

    async def queue(self, order: Order) -> None:
        """Queue one job, again and again while nobody answers; an id of one's own tells whether it was taken."""
        body = {
            "prompt": order.prompt,
            "client_id": f"tab-{self.number}",
            "prompt_id": order.prompt_id,
            "front": order.front,
            "extra_data": order.extra,
        }
        while True:
            try:
                async with self._http.post(f"{self._url}/prompt", json=body) as answer:
                    text = await answer.text()
                if answer.status == 200:
                    break
                if answer.status not in AWAY:
                    self.refusals.append(f"{order.prompt_id}: {answer.status} {text[:300]}")
                    return
                self.unsure.add(order.prompt_id)  # a database may break off after it has stored it
                if await self._known(order.prompt_id):
                    break
            except GONE:
                self.unsure.add(order.prompt_id)
                if await self._known(order.prompt_id):
                    break
            await asyncio.sleep(PAUSE_S)
        self.accepted[order.prompt_id] = order
        if order.cancel:
            await asyncio.sleep(self._chance.uniform(0.0, 0.8))
            self.cancelled.add(order.prompt_id)
            await self._patiently("POST", "/api/jobs/cancel", json={"job_ids": [order.prompt_id]})

    async def get(self, path: str) -> Any:
        """What the proxy answers, parsed; None for 404."""
        status, body = await self._patiently("GET", path)
        assert status in (200, 404), (path, status, body)
        return body if status == 200 else None

    async def listen(self) -> None:
        """Keep a tab open; each connection's frames are counted apart."""
        while True:
            told = Told()
            try:
                url = f"{self._url}/ws?clientId=tab-{self.number}"
                async with self._http.ws_connect(url, max_msg_size=0, heartbeat=5.0) as tab:
                    told.opened_ms = now_ms()
                    self.told.append(told)
                    self._socket = tab
                    self.listening = True
                    await tab.send_json({"type": "feature_flags", "data": {"supports_preview_metadata": True}})
                    async for message in tab:
                        if message.type in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY):
                            self._hear(told, Frame.of(message))
            except GONE:
                pass
            finally:
                told.closed_ms = now_ms()
            self.listening = False
            await asyncio.sleep(PAUSE_S)

    def cut(self) -> None:
        """Break the tab's connection without a farewell."""
        if self._socket is not None and (wire := self._socket.get_extra_info("socket")) is not None:
            with contextlib.suppress(OSError):  # it has just ended by itself
                wire.shutdown(socket.SHUT_RDWR)

    def _hear(self, told: Told, frame: Frame) -> None:
        data = preview_metadata(frame)[0] if frame.kind == f"binary {PREVIEW_WITH_METADATA}" else frame.data
        prompt_id = data.get("prompt_id")
        if prompt_id is None:
            return
        if not str(prompt_id).startswith(f"chaos-{self.number}-"):
            told.strange.add(f"{frame.kind} of {prompt_id}")
        told.counts[frame.kind, str(prompt_id)] += 1

    async def _use_session(self) -> None:
        """Ask it for something, as a page does: one that was ended starts again. No answer is no matter."""
        with contextlib.suppress(*GONE):
            async with self._http.get(f"{self._url}/settings") as answer:
                await answer.read()

    async def _upload(self) -> None:
        data = io.BytesIO()
        Image.new("RGB", (SIDE, SIDE), f"#{own_colour(self.number):06x}").save(data, "PNG")
        while True:
            form = aiohttp.FormData()
            form.add_field("image", data.getvalue(), filename=UPLOAD, content_type="image/png")
            form.add_field("overwrite", "true")
            try:
                async with self._http.post(f"{self._url}/upload/image", data=form) as answer:
                    if answer.status == 200:
                        return
            except GONE:
                pass
            await asyncio.sleep(PAUSE_S)

    async def _waiting(self) -> int:
        _, body = await self._patiently("GET", "/prompt")
        return int(body["exec_info"]["queue_remaining"])

    async def _known(self, prompt_id: str) -> bool:
        status, _ = await self._patiently("GET", f"/api/jobs/{prompt_id}")
        return status == 200

    async def _patiently(self, method: str, path: str, **options: Any) -> tuple[int, Any]:
        """Status and body of an answer, asked for until there is one."""
        while True:
            try:
                async with self._http.request(method, self._url + path, **options) as answer:
                    if answer.status not in AWAY:
                        return answer.status, await answer.json(content_type=None)
            except GONE:
                pass
            await asyncio.sleep(PAUSE_S)
