"""A real ComfyUI as the pack's host: directories, caches, queue, frames and log of the process it was loaded into."""

import datetime
import hashlib
import importlib
import json
import logging
import os
import platform
import sys
import time
import uuid
from typing import Any

from . import comfy_cache
from .comfy_hooks import stock_route
from .comfy_paths import Paths
from .host import Answer, Dirs, Json
from .slot import Slot

log = logging.getLogger("comfyui-cluster-worker")

NOT_MODELS = frozenset({"custom_nodes", "configs"})


class StandIn:
    """What ComfyUI's own handlers ask of a request."""

    def __init__(self, body: Json) -> None:
        self._body = body
        self.headers: dict[str, str] = {}
        self.query: dict[str, str] = {}

    async def json(self) -> Json:
        """The body."""
        return self._body


class ComfyHost:
    """The pack's hands in ComfyUI. `attach` gives it the slot whose job it serves."""

    def __init__(self) -> None:
        self._server: Any = importlib.import_module("server").PromptServer.instance
        self._nodes: Any = importlib.import_module("nodes")
        self._folder_paths: Any = importlib.import_module("folder_paths")
        self._management: Any = importlib.import_module("comfy.model_management")
        self._paths = Paths()
        self.startup = self._paths.startup
        self._user = ""
        comfy_cache.install(lambda: self._user, self._paths.own_model_roots)

    def attach(self, slot: Slot) -> None:
        """Tell the slot when its job has ended, and its owner what is broadcast."""
        execution = importlib.import_module("execution")
        execute = execution.PromptExecutor.execute

        def execute_for_owner(executor: Any, prompt: Any, prompt_id: str, *rest: Any, **named: Any) -> Any:
            slot.executing(prompt_id)
            try:
                return execute(executor, prompt, prompt_id, *rest, **named)
            finally:
                slot.executed(prompt_id)

        execution.PromptExecutor.execute = execute_for_owner
        send = self._server.send_sync

        def send_to_owner(event: Any, data: Any, sid: str | None = None) -> Any:
            if sid is None and event != "status":
                sid = slot.owner or sid
            return send(event, data, sid)

        self._server.send_sync = send_to_owner

    def switch(self, dirs: Dirs, user: str) -> None:
        """Directories, and whose results the caches look for."""
        self._user = user
        self._paths.to(dirs)

    def restore(self) -> None:
        """ComfyUI's own again."""
        self._paths.to(self._paths.startup)
        self._user = ""

    async def submit(self, order: Json) -> Answer:
        """ComfyUI's own handler of POST /prompt, with its own answers."""
        response = await stock_route("POST", "/prompt")(StandIn(order))
        return Answer(response.status, json.loads(response.body))

    async def validate(self, order: Json) -> Answer:
        """Its validation alone, in the server's own directories."""
        validate_prompt = importlib.import_module("execution").validate_prompt
        valid = await validate_prompt(str(uuid.uuid4()), order["prompt"], order.get("partial_execution_targets"))
        if valid[0]:
            return Answer(200, {"node_errors": valid[3]})
        return Answer(400, {"error": valid[1], "node_errors": valid[3]})

    def where(self, prompt_id: str) -> str:
        """By its queue."""
        running, pending = self._server.prompt_queue.get_current_queue()
        if any(item[1] == prompt_id for item in running):
            return "running"
        return "pending" if any(item[1] == prompt_id for item in pending) else "gone"

    def remaining(self) -> int:
        """As in GET /prompt."""
        return int(self._server.prompt_queue.get_tasks_remaining())

    def forget(self, prompt_id: str) -> None:
        """Out of queue and history."""
        self._server.prompt_queue.delete_queue_item(lambda item: item[1] == prompt_id)
        self._server.prompt_queue.delete_history_item(prompt_id)

    def free(self) -> None:
        """The worker thread does it before its next job."""
        for flag in ("unload_models", "free_memory"):
            self._server.prompt_queue.set_flag(flag, True)

    def facts(self) -> Json:
        """Versions and the first device."""
        management, torch = self._management, sys.modules.get("torch")
        device = management.get_torch_device()
        return {
            "comfyui": importlib.import_module("comfyui_version").__version__,
            "torch": str(getattr(torch, "__version__", "")),
            "python": platform.python_version(),
            "gpu": str(management.get_torch_device_name(device)),
            "vram_total": int(management.get_total_memory(device)),
            "vram_free": int(management.get_free_memory(device)),
        }

    def inventory(self) -> str:
        """Node classes and model files by name."""
        found = hashlib.sha256("\n".join(sorted(self._nodes.NODE_CLASS_MAPPINGS)).encode())
        for folder in sorted(set(self._folder_paths.folder_names_and_paths) - NOT_MODELS):
            try:
                names = self._folder_paths.get_filename_list(folder)
            except OSError:  # it is being changed
                names = [f"? {time.time()}"]
            found.update("\n".join([folder, *names]).encode(errors="surrogateescape"))
        return found.hexdigest()

    def log_lines(self, since_s: float, until_s: float | None) -> list[Json]:
        """The last lines of its terminal (300 of them are kept) within the span."""
        lines = importlib.import_module("app.logger").get_logs() or ()
        begin, end = _local(since_s), "9" if until_s is None else _local(until_s)
        return [dict(line) for line in list(lines) if begin <= line["t"] <= end]

    def restart(self) -> None:
        """The same command again, in the same process."""
        self.restore()
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 - our own command line


def _local(seconds: float) -> str:
    """The form of the log's times: local, without a zone."""
    return datetime.datetime.fromtimestamp(seconds).isoformat()  # noqa: DTZ006
