"""What a backend says of one attempt, on its way to the job's user: frames in the user's terms, files first.

Keeps what the user has been told, for whoever writes the end. Writes no state.
"""

import asyncio
from collections.abc import Callable

from backend_pool.comfy.frames import Message
from backend_pool.comfy.result import TERMINAL
from backend_pool.errors import BackendGone, FileGone, Swept
from backend_pool.forecasts.meter import Meter
from backend_pool.jobs.record import JobRecord
from backend_pool.model import JsonDict
from backend_pool.runs.job_files import JobFiles
from proxy.base.clock import monotonic_s
from proxy.base.logs import events

log = events(__name__)


class Relay:
    """The ear of one attempt."""

    def __init__(
        self, record: JobRecord, files: JobFiles, meter: Meter, backend: str, rendered: Callable[[], None]
    ) -> None:
        self._record = record
        self._files = files
        self._meter = meter
        self._backend = backend
        self._rendered = rendered
        self.told: JsonDict = {}
        """Outputs by node that the user has been told of: they stay whatever becomes of the job."""
        self.last_words: Message | None = None
        self._heard_s = monotonic_s()
        self._fetching = False
        self.began = asyncio.Event()

    @property
    def silent_s(self) -> float:
        """How long it has given no sign of life; what it says while a file is being fetched is heard afterwards."""
        return 0.0 if self._fetching else monotonic_s() - self._heard_s

    def begun(self) -> None:
        """The backend has the job running; heard, or seen in its queue."""
        if not self.began.is_set():
            self._heard_s = monotonic_s()
            self.began.set()
        self._record.begin()

    def succeeded(self) -> None:
        """The backend has ended it well: its next job need not wait for this one's files."""
        self._record.rendered()
        self._rendered()

    def missed(self) -> None:
        """The event socket was gone for a while."""
        self._meter.missed()

    async def hear(self, frame: str | bytes) -> bool:
        """Act on one frame; True for the end marker."""
        if isinstance(frame, bytes):
            self._heard_s = monotonic_s()
            translated = self._files.binary(frame) if self._record.began else None
            if translated is not None:
                self._record.tell(translated)
            return False
        message = self._files.text(frame)
        return message is not None and await self._message(message)

    async def _message(self, message: Message) -> bool:
        now_s = monotonic_s()
        # What packs tell everybody about the machine is no sign of life.
        if not message.data.keys().isdisjoint(("prompt_id", "node")):
            self._heard_s = now_s
            if self._record.began and message.type not in TERMINAL:
                self.began.set()
        self._meter.hear(message.type, message.data, now_s)
        if message.type == "executing" and message.data.get("node") is None:
            return "prompt_id" in message.data
        if message.type in TERMINAL and "timestamp" in message.data:
            self.last_words = message  # told once the result is stored; a blocked node's error has no timestamp
        elif message.type == "executed":
            await self._executed(message.data)
        else:
            if message.type == "execution_start":
                self.begun()
                self._files.began(message.data.get("timestamp"))
            self._record.tell(message)
        return False

    async def _executed(self, data: JsonDict) -> None:
        """Bring the files, then tell. What cannot be brought now is tried again at the end."""
        self._fetching = True
        try:
            output = await self._files.localize(data.get("output"))
        except (FileGone, BackendGone, Swept) as error:
            job = self._record.job.prompt_id
            log.warning("file not fetched yet", job=job, backend=self._backend, error=str(error))
            return
        finally:
            self._fetching, self._heard_s = False, monotonic_s()
        self.told[str(data.get("node"))] = output
        self._record.tell(Message("executed", {**self._files.restored(data), "output": output}))

    def tell_missed(self, node: str, display_node: str, output: object) -> None:
        """The output of a node whose `executed` was not heard; many clients read nothing else."""
        if node not in self.told:
            data = {"node": node, "display_node": display_node, "output": output}
            self._record.tell(Message("executed", {**data, "prompt_id": self._record.job.prompt_id}))
        self.told[node] = output
