"""One attempt's prompt at its backend: submit, hear, look, interrupt, all through short outages.

The backend's `/history` is the truth and the event socket a convenience: silence, a dropped socket or a restart of this
proxy all lead to looking there.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol, TypeVar

from aiohttp import ClientWebSocketResponse, WSMsgType

from backend_pool.backends.member import Member
from backend_pool.comfy.client import Whereabouts
from backend_pool.comfy.frames import decode
from backend_pool.comfy.read_ahead import ReadAhead
from backend_pool.errors import BackendBroken, BackendBusy, BackendError, BackendGone, BackendRefused
from backend_pool.jobs.delay import Cause, Delay
from backend_pool.model import JsonDict
from backend_pool.runs.job_files import JobFiles
from proxy.base.logs import events
from proxy.base.settings import Settings
from proxy.base.tasks import beside

log = events(__name__)
T = TypeVar("T")

RETRY_S = 0.5
SUBMIT_TRIES = 3
SUCCESS = "execution_success"
LAST_FRAMES_S = 0.5
"""How long the frames of a prompt that is in the history already may take to arrive."""


class Ear(Protocol):
    """Whoever wants to know what becomes of the prompt."""

    async def hear(self, frame: str | bytes) -> bool:
        """A frame; True for the end marker."""

    def begun(self) -> None:
        """The backend has begun it."""

    def succeeded(self) -> None:
        """The backend has ended it well, and may begin another; frames from before may be still to be heard."""

    def missed(self) -> None:
        """Frames may have been missed."""


class Lost(Exception):
    """The backend no longer has the job, or is gone itself: it may run elsewhere.

    `counts` is False when the backend never had it: that is no attempt.
    """

    def __init__(self, message: str, *, counts: bool = True) -> None:
        super().__init__(message)
        self.counts = counts


class Evicted(Lost):
    """An operator took the job away from a backend that is well."""


class Upstream:
    """`submitted` once the backend has the prompt; `ended` once it has let go of it."""

    def __init__(self, member: Member, prompt_id: str, client_id: str, settings: Settings, delay: Delay) -> None:
        self.prompt_id = prompt_id
        self._client_id = client_id
        self._member = member
        self._client = member.client
        self._settings = settings
        self._delay = delay
        self._unsure = False
        self._tries = 0
        self.submitted = False
        self.ended = False

    @property
    def may_run(self) -> bool:
        """Whether the backend may still have the prompt in its queue."""
        return (self.submitted or self._unsure) and not self.ended

    async def where(self) -> Whereabouts:
        """Where the backend has the prompt."""
        return await self._client.whereabouts(self.prompt_id)

    async def history(self) -> JsonDict:
        """The entry of the ended prompt. Raises Lost when there is none."""
        entry = await self.patiently(lambda: self._client.history(self.prompt_id))
        if entry is None:
            raise Lost("the backend's history does not have the job")
        self.ended = True
        return entry

    async def take_up(self, *, begun: bool) -> None:
        """Look for a prompt that an earlier process may have submitted. Raises Lost when it has begun and is gone."""
        where = await self.patiently(self.where)
        self.submitted, self.ended = where != "absent", where == "history"
        if begun and not self.submitted:
            raise Lost("the backend does not know the job any more")

    async def follow(self, files: JobFiles, order: Mapping[str, Any], ear: Ear) -> None:
        """Submit if that is still to do, then pass on frames until the backend has the prompt in its history."""
        outage = False
        while not self.ended:
            try:
                async with self._client.events(self._client_id) as socket:
                    outage = False
                    self._delay.end(Cause.AWAY)
                    if not self.submitted:
                        await self._submit(files, order)
                    if await self._pump(socket, ear):
                        return
            except BackendGone as error:
                if not outage:
                    log.info("backend connection lost", backend=self._member.row.name, error=str(error))
                outage = True
                self._delay.begin(Cause.AWAY)
                self._tries += 1
                if not self.submitted and not self._unsure and self._tries >= SUBMIT_TRIES:
                    refused = isinstance(error, BackendBroken) and not isinstance(error, BackendBusy)
                    raise Lost(f"the backend does not take jobs: {error}", counts=refused) from error
            ear.missed()
            await asyncio.sleep(RETRY_S)
            if self.submitted:
                with contextlib.suppress(BackendGone):
                    if await self._in_history(ear):
                        return

    async def interrupt(self) -> None:
        """End it at the backend. One that lands between two prompts is lost (protocol §8.19): repeat until it ended.

        Raises Lost when it never began there.
        """
        while True:
            if self.submitted or self._unsure:
                with contextlib.suppress(BackendError):
                    await self._client.post("/queue", {"delete": [self.prompt_id]})
                    where = await self.where()
                    if where == "running":
                        await self._client.post("/interrupt", {"prompt_id": self.prompt_id})
                    elif where == "absent" and self.submitted:
                        self.ended = True
                        raise Lost("it was removed from the backend's queue")
            else:  # its files are on their way there, and nothing else has to come to an end
                raise Lost("the backend did not have it yet", counts=False)
            await asyncio.sleep(RETRY_S)

    async def raise_when_gone(self) -> None:
        """Lost, once the backend is judged down or was removed."""
        await self._member.gone.wait()
        raise Lost("the backend is gone", counts=self.submitted or self._unsure)

    async def patiently(self, call: Callable[[], Awaitable[T]]) -> T:
        """Repeat a call through short outages; Lost once the backend is judged down."""
        while True:
            try:
                answer = await call()
                self._delay.end(Cause.AWAY)
                return answer
            except BackendGone:
                self._delay.begin(Cause.AWAY)
                if self._member.gone.is_set():
                    raise Lost("the backend is gone") from None
                await asyncio.sleep(RETRY_S)

    async def _submit(self, files: JobFiles, order: Mapping[str, Any]) -> None:
        if self._unsure and await self.where() != "absent":
            self.submitted = True
            return
        await files.send()
        self._unsure = True  # an answer that never comes may follow a prompt that was taken
        ids = {"prompt_id": self.prompt_id, "client_id": self._client_id}
        try:
            answer = await files.submit({**order, **ids})
        except (BackendBroken, BackendRefused):
            self._unsure = False  # it answered, and not with a prompt id
            raise
        if answer.get("prompt_id") != self.prompt_id:
            raise BackendRefused("This backend's ComfyUI ignores prompt ids. Update it to 0.3.64 or newer.", answer)
        self.submitted = True
        self._delay.begin(Cause.QUEUED)

    async def _pump(self, socket: ClientWebSocketResponse, ear: Ear) -> bool:
        """True when the prompt has ended, False when the socket did."""
        ahead = ReadAhead(socket, lambda text: self._notice(text, ear))
        return await beside("listen", self._listen(ahead, ear), [ahead.read()])

    def _notice(self, text: str, ear: Ear) -> None:
        message = decode(text) if SUCCESS in text else None
        if message is not None and (message.type, message.data.get("prompt_id")) == (SUCCESS, self.prompt_id):
            ear.succeeded()

    async def _listen(self, ahead: ReadAhead, ear: Ear) -> bool:
        ended = False
        while True:
            try:
                frame = await ahead.receive(LAST_FRAMES_S if ended else self._settings.job_poll_s)
            except TimeoutError:
                if ended:
                    return True
                ended = await self._in_history(ear)  # it may have ended just now, its frames still on their way
                continue
            if frame.type not in (WSMsgType.TEXT, WSMsgType.BINARY):
                return False
            if await ear.hear(frame.data):
                return True

    async def _in_history(self, ear: Ear) -> bool:
        """Whether the backend has finished the prompt; raises Lost when it does not know it."""
        where = await self.where()
        if where == "absent":
            self.ended = True
            raise Lost("the backend lost the job, probably by a restart")
        if where == "running":
            ear.begun()
        return where == "history"
