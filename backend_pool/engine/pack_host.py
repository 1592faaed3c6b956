"""The embedded engine as the host of a worker pack: the way of the pack without torch, in CI and for trying."""

import asyncio
import hashlib
import json
import os
import platform
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from backend_pool.engine.engine import Engine
from backend_pool.engine.log_ring import entries
from backend_pool.engine.models import FOLDERS, MB
from backend_pool.engine.routes_info import COMFYUI_VERSION
from backend_pool.engine.routes_prompt import accept, judge
from backend_pool.worker_pack.config import load
from backend_pool.worker_pack.host import Answer, Dirs
from backend_pool.worker_pack.pack import Pack
from backend_pool.worker_pack.wire import KINDS


class EngineHost:
    """The pack's hands in the engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.startup = Dirs(*(str(engine.directories.root(kind)) for kind in KINDS))

    def switch(self, dirs: Dirs, user: str) -> None:
        """Directories, and whose results the cache looks for."""
        self._engine.executor.user = user
        self._engine.directories.switch({kind: Path(dirs.of(kind)) for kind in KINDS})

    def restore(self) -> None:
        """The engine's own again."""
        self._engine.directories.switch(None)
        self._engine.executor.user = ""

    async def submit(self, order: dict[str, Any]) -> Answer:
        """As POST /prompt."""
        return Answer(*await accept(self._engine, order))

    async def validate(self, order: dict[str, Any]) -> Answer:
        """As POST /prompt, without queueing."""
        verdict = await asyncio.to_thread(judge, self._engine, order)
        return Answer(200, {"node_errors": verdict.node_errors}) if verdict.ok else Answer(400, verdict.body())

    def where(self, prompt_id: str) -> str:
        """By the queue."""
        running, pending = self._engine.queue.items()
        if any(item.prompt_id == prompt_id for item in running):
            return "running"
        return "pending" if any(item.prompt_id == prompt_id for item in pending) else "gone"

    def remaining(self) -> int:
        """As in GET /prompt."""
        return self._engine.queue.remaining()

    def forget(self, prompt_id: str) -> None:
        """Out of queue and history."""
        self._engine.queue.delete(prompt_id)
        self._engine.queue.delete_history(prompt_id)

    def free(self) -> None:
        """Between jobs."""
        for flag in ("unload_models", "free_memory"):
            self._engine.queue.set_flag(flag)

    def facts(self) -> dict[str, Any]:
        """The simulated device."""
        models = self._engine.models
        used = sum(models.loaded().values()) * MB
        return {
            "comfyui": COMFYUI_VERSION,
            "torch": "",
            "python": platform.python_version(),
            "gpu": f"embedded engine {self._engine.options.name}",
            "vram_total": models.vram_mb * MB,
            "vram_free": max(0, models.vram_mb * MB - used),
        }

    def inventory(self) -> str:
        """Node classes and model names."""
        models = self._engine.models
        listing = [sorted(self._engine.executor.nodes), *([folder, *models.names(folder)] for folder in FOLDERS)]
        return hashlib.sha256(json.dumps(listing).encode()).hexdigest()

    def log_lines(self, since_s: float, until_s: float | None) -> list[dict[str, Any]]:
        """Lines kept of the span; their times are UTC."""
        begin = datetime.fromtimestamp(since_s, UTC).isoformat()
        end = "9" if until_s is None else datetime.fromtimestamp(until_s, UTC).isoformat()
        return [dict(line) for line in entries() if begin <= line["t"] <= end]

    def restart(self) -> None:
        """The same command again, in the same process."""
        sys.stdout.flush()
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 - our own command line


def mount(engine: Engine, settings: Path) -> Pack:
    """A pack over an engine. Raises ConfigProblem."""
    pack = Pack(
        load(settings), EngineHost(engine), engine.directories.base / "worker-pack", engine.options.port or None
    )
    engine.worker.begins = pack.slot.executing
    engine.worker.ended = pack.slot.executed
    return pack
