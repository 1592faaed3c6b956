"""What a running node may ask of its surroundings: progress, waiting, files, models. Lives in the worker thread."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from backend_pool.engine.faults import Fault, Faults, crash
from backend_pool.engine.files import Directories, inside
from backend_pool.engine.models import Models
from backend_pool.engine.options import Options
from backend_pool.engine.progress import Progress
from backend_pool.engine.sockets import Sockets

if TYPE_CHECKING:
    from PIL.Image import Image

HANG_CHECK_S = 0.1


class Interrupted(Exception):
    """The user stopped the job."""


class OutOfMemoryError(Exception):
    """Looks like torch's to whoever reads `execution_error`."""


OutOfMemoryError.__module__ = "torch"


class AcceleratorError(RuntimeError):
    """Looks like torch's to whoever reads `execution_error`."""


AcceleratorError.__module__ = "torch"
BROKEN = "CUDA error: an illegal memory access was encountered"


class InjectedError(RuntimeError):
    """An `error` fault."""


@dataclass(frozen=True)
class Services:
    """What the engine is made of, as the worker sees it."""

    options: Options
    directories: Directories
    models: Models
    faults: Faults
    sockets: Sockets
    interrupted: threading.Event
    block_loop: Callable[[float | None], None]
    """Stop the event loop from answering, for so many seconds or for ever."""


@dataclass
class Job:
    """One node of one prompt, as its `run` sees it."""

    services: Services
    progress_map: Progress
    node_id: str
    class_type: str
    prompt: dict[str, Any]
    extra_data: dict[str, Any]
    sid: str | None
    state: dict[str, Any] = field(default_factory=dict)
    """Kept from run to run for the same node id and class, as ComfyUI keeps node instances."""
    reports: int = 0

    @property
    def directories(self) -> Directories:
        """The engine's directories."""
        return self.services.directories

    @property
    def wants_previews(self) -> bool:
        """Whether this prompt gets previews: its own `preview_method`, else the engine's."""
        method = self.extra_data.get("preview_method")
        if method in ("none", "auto", "latent2rgb", "taesd"):
            return bool(method != "none")
        return self.services.options.previews

    def check(self) -> None:
        """Raise Interrupted when the user stopped the job."""
        if self.services.interrupted.is_set():
            raise Interrupted

    def wait(self, seconds: float) -> None:
        """Sleep as a busy GPU would, ending early by Interrupted."""
        if self.services.interrupted.wait(seconds):
            raise Interrupted

    def use_model(self, folder: str, name: str) -> None:
        """Make a model resident; takes its load time when it was not."""
        self.services.models.use(folder, name, self.wait)

    def report(self, value: float, total: float, preview: "Image | None" = None) -> None:
        """Progress of this node: frames in ComfyUI's order, and the place where faults strike mid-step."""
        self.check()
        self.reports += 1
        self.strike(self.reports)
        self.progress_map.update(self.node_id, value, total)
        jpeg = None if preview is None else _jpeg(preview)
        sockets, sid = self.services.sockets, self.sid
        metadata_first = sockets.has_metadata(sid)
        if jpeg is not None and metadata_first:
            sockets.preview(jpeg, self.progress_map.identity(self.node_id), sid)
        self.progress_map.progress(self.node_id, value, total)
        if jpeg is not None and not metadata_first:
            sockets.preview(jpeg, {}, sid)

    def strike(self, step: int) -> None:
        """Suffer the fault that is armed for this node and step, if any."""
        faults = self.services.faults
        fault = faults.take_at_node(self.node_id, self.class_type, step)
        if faults.broken:
            raise AcceleratorError(BROKEN)
        if fault is None:
            return
        if fault.fault == "oom":
            raise OutOfMemoryError(fault.message or "CUDA out of memory. Tried to allocate 20.00 GiB. (injected fault)")
        if fault.fault == "cuda":
            faults.broken = True
            raise AcceleratorError(fault.message or BROKEN)
        if fault.fault == "mute":
            self.services.sockets.mute(fault.seconds)
        if fault.fault == "error":
            raise InjectedError(fault.message or "This node failed because a fault was armed for it.")
        if fault.fault == "crash":
            crash()
        if fault.fault == "stray_file":
            self._write_unasked(fault.message or "output/stray.txt")
        if fault.fault == "drop_ws":
            self.services.sockets.abort_all_soon()
        if fault.fault == "hang_server":
            self.services.block_loop(fault.seconds)
        if fault.fault == "hang_job":
            self._hang(fault)

    def _write_unasked(self, path: str) -> None:
        """What nodes of custom packs do: a file that no output names."""
        kind, _, name = path.partition("/")
        target = inside(self.directories.root(kind), name)
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("a") as out:
            out.write(f"written by {self.class_type}\n")

    def _hang(self, fault: Fault) -> None:
        waited = 0.0
        while not self.services.faults.released.wait(HANG_CHECK_S):
            waited += HANG_CHECK_S
            if fault.seconds is not None and waited >= fault.seconds:
                return
            if fault.heeds_interrupt:
                self.check()


def _jpeg(picture: "Image") -> bytes:
    import io

    buffer = io.BytesIO()
    picture.save(buffer, format="JPEG", quality=90)
    return buffer.getvalue()
