"""The seam between a runner and the ways a job's files and names travel: a stock ComfyUI, or one with the worker pack.

A runner decides what becomes of a job; what stands behind this decides how its inputs reach the backend, what the
prompt looks like there, and how its outputs come home. Calls come one at a time.
"""

from collections.abc import Iterable
from typing import Any, Protocol

from backend_pool.comfy.frames import Message
from backend_pool.model import JsonDict


class JobFiles(Protocol):
    """One attempt's files."""

    @property
    def files(self) -> list[JsonDict]:
        """What the job's document notes of them (`noted_files`)."""

    async def prepare(self) -> None:
        """Make the prompt fit for the backend; again after a restart. Raises Unstageable, OSError."""

    async def send(self) -> None:
        """Bring the inputs to the backend. May be repeated. Raises BackendGone, BackendRefused."""

    async def submit(self, order: JsonDict) -> JsonDict:
        """Submit the prompt with `order`, and return the answer. Raises as ComfyClient.submit does."""

    def began(self, at_ms: Any) -> None:
        """The job began then, by the backend's clock."""

    def text(self, frame: str) -> Message | None:
        """A JSON frame in the user's terms, None when it is not this job's; `executed` still names upstream files."""

    def binary(self, frame: bytes) -> bytes | None:
        """A binary frame in the user's terms, None when it is not for the user."""

    def document(self, value: Any) -> Any:
        """A JSON value of the backend's history with the job's id; file names as the backend has them. Blocking."""

    def restored(self, value: Any) -> Any:
        """A JSON value with the user's own file names and prefixes."""

    async def missing(self, outputs: Iterable[Any]) -> bool:
        """Whether the ended job has files that are not at home yet."""

    def is_home(self, ui: Any) -> bool:
        """Whether `localize` would find every file of this output at home."""

    async def localize(self, ui: Any) -> Any:
        """The output in the user's names, its files being at home. Raises FileGone, BackendGone, DiskFull."""

    async def bring_rest(self) -> None:
        """Bring home what the job wrote and no output lists. Raises as `localize`."""

    def discard(self, outputs: JsonDict) -> None:
        """Remove what this job brought home except what `outputs` shows. Blocking."""

    def ended(self) -> None:
        """The job's end is stored: what it brought home stays."""

    async def forget(self) -> None:
        """Leave nothing of the ended job at the backend. Raises BackendError."""
