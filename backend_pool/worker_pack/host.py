"""The seam between the pack's server part and what it is mounted in: a real ComfyUI, or the embedded engine."""

from dataclasses import dataclass
from typing import Any, Protocol

Json = dict[str, Any]


@dataclass(frozen=True)
class Dirs:
    """Absolute directories of one job, or of the server itself."""

    input: str
    output: str
    temp: str

    def of(self, kind: str) -> str:
        """The one of a kind: `input`, `output` or `temp`."""
        return str(getattr(self, kind))


@dataclass(frozen=True)
class Answer:
    """What the server says to a prompt: ComfyUI's own status and body."""

    status: int
    body: Any


class Host(Protocol):
    """All but `restore` are called on the server's event loop, or in a thread where it says so."""

    startup: Dirs
    """The server's own directories."""

    def switch(self, dirs: Dirs, user: str) -> None:
        """From now on everybody's input, output and temp are these, and results are kept for `user` alone."""

    def restore(self) -> None:
        """Back to the server's own directories. From any thread; twice does no harm."""

    async def submit(self, order: Json) -> Answer:
        """Validate and queue, as POST /prompt does."""

    async def validate(self, order: Json) -> Answer:
        """Validate only: 200 and `node_errors`, or what POST /prompt refuses with."""

    def where(self, prompt_id: str) -> str:
        """`running`, `pending` or `gone`: neither of them."""

    def remaining(self) -> int:
        """Prompts that run or wait, whoever sent them."""

    def forget(self, prompt_id: str) -> None:
        """Take a prompt out of the queue and the history."""

    def free(self) -> None:
        """Unload models and drop kept results, soon."""

    def facts(self) -> Json:
        """`comfyui`, `torch`, `python`, `gpu`, `vram_total`, `vram_free`; in a thread."""

    def inventory(self) -> str:
        """A hash of node classes and model files; in a thread, while no job runs."""

    def log_lines(self, since_s: float, until_s: float | None) -> list[Json]:
        """Lines `{t, m}` of the server's log within that span of the wall clock."""

    def restart(self) -> None:
        """Begin anew in place (os.execv); does not return."""
