"""Runs one prompt after the other in the worker thread, with ComfyUI's events, cache and errors in ComfyUI's order."""

import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from backend_pool.engine.cache import Cache, Entry
from backend_pool.engine.job import Interrupted, Job, OutOfMemoryError, Services
from backend_pool.engine.nodes.registry import Node, Shown
from backend_pool.engine.plan import Plan
from backend_pool.engine.progress import Progress
from backend_pool.engine.prompt_queue import Item, Outcome
from backend_pool.prompts.reach import is_link, links
from backend_pool.worker_pack.comfy_cache import SHARED_LOADERS
from proxy.base.clock import monotonic_s, now_ms
from proxy.base.logs import events

log = events(__name__)

OOM_TIP = "The graphics memory ran out. A smaller batch or picture needs less."


@dataclass
class Run:
    """One prompt on its way."""

    item: Item
    extra_data: dict[str, Any]
    sid: str | None
    progress: Progress
    executed: list[str] = field(default_factory=list)
    outputs: dict[str, Any] = field(default_factory=dict)
    messages: list[tuple[str, dict[str, Any]]] = field(default_factory=list)


@dataclass
class Timing:
    """How often nodes of a class ran, and for how long together."""

    runs: int = 0
    seconds: float = 0.0


class Executor:
    """`run` an item to its outcome. `client_id` and `last_node_id` are what a reconnecting client is told."""

    def __init__(self, services: Services, nodes: dict[str, Node]) -> None:
        self.services = services
        self.nodes = nodes
        self.cache = Cache()
        self.client_id: str | None = None
        self.last_node_id: str | None = None
        self.timings: dict[str, Timing] = {}
        self._states: dict[tuple[str, str, str], dict[str, Any]] = {}
        self.user = ""
        """For whom results are kept: a worker pack sets it with the directories."""

    def run(self, item: Item) -> Outcome:
        """Execute a validated prompt; never raises for what a node does."""
        self.client_id = item.extra_data.get("client_id")
        send = self._sender(self.client_id)
        run = Run(item, item.extra_data | item.sensitive, self.client_id, Progress(item.prompt_id, send))
        self._message(run, "execution_start", {})
        prompt = item.prompt
        kept = {(node_id, node["class_type"], self.user) for node_id, node in prompt.items()}
        self._states = {key: state for key, state in self._states.items() if key in kept}
        cached = self.cache.prepare(
            prompt,
            lambda node_id: self._fingerprint(run, node_id),
            lambda node_id: "" if prompt[node_id]["class_type"] in SHARED_LOADERS else self.user,
        )
        self._message(run, "execution_cached", {"nodes": cached})
        plan = Plan(
            item.outputs,
            parents=lambda node_id: [parent for parent in links(prompt[node_id]) if parent in prompt],
            is_cached=lambda node_id: self.cache.get(node_id) is not None,
            is_output=lambda node_id: self.nodes[prompt[node_id]["class_type"]].output_node,
        )
        success = True
        while success and (node_id := plan.pick()) is not None:
            success = self._node(run, node_id)
            plan.finish(node_id)
        if success:
            self._message(run, "execution_success", {})
        self.last_node_id = None
        meta = {node_id: _meta(node_id) for node_id in run.outputs}
        return Outcome(success, run.outputs, meta, run.messages)

    def forget(self) -> None:
        """Drop all cached results and node states, as `free_memory` asks."""
        self.cache.clear()
        self._states.clear()

    def _node(self, run: Run, node_id: str) -> bool:
        cached = self.cache.get(node_id)
        if cached is not None:
            if run.sid is not None:
                self._executed(run, node_id, cached.ui)
            if cached.ui is not None:
                run.outputs[node_id] = cached.ui
            run.progress.finish(node_id)
            return True
        inputs: dict[str, list[Any]] = {}
        job = self._job(run, node_id)
        run.progress.start(node_id)
        try:
            inputs.update(self._inputs(run, node_id))
            if run.sid is not None:
                self.last_node_id = node_id
                where = {"node": node_id, "display_node": node_id, "prompt_id": run.item.prompt_id}
                self.services.sockets.send("executing", where, run.sid)
            job.check()
            job.strike(0)
            began = monotonic_s()
            entry = _execute(self.nodes[job.class_type], job, inputs)
            timing = self.timings.setdefault(job.class_type, Timing())
            timing.runs += 1
            timing.seconds += monotonic_s() - began
        except Interrupted:
            self._message(run, "execution_interrupted", self._where(run, job), broadcast=True)
            return False
        except Exception as error:
            self._failed(run, job, inputs, error)
            return False
        if entry.ui is not None:
            run.outputs[node_id] = entry.ui
            self.services.faults.crash_at("before_executed")
            if run.sid is not None:
                self._executed(run, node_id, entry.ui)
        self.cache.set(node_id, entry)
        run.progress.finish(node_id)
        run.executed.append(node_id)
        return True

    def _inputs(self, run: Run, node_id: str) -> dict[str, list[Any]]:
        node = run.item.prompt[node_id]
        definition = self.nodes[node["class_type"]]
        found: dict[str, list[Any]] = {}
        for name, value in node["inputs"].items():
            if not definition.declares(name):
                continue
            if not is_link(value):
                found[name] = [value]
                continue
            source = self.cache.get(value[0])
            found[name] = [None] if source is None or value[1] >= len(source.values) else source.values[value[1]]
        return found

    def _failed(self, run: Run, job: Job, inputs: dict[str, list[Any]], error: Exception) -> None:
        tip = ""
        if isinstance(error, OutOfMemoryError | MemoryError):
            tip = OOM_TIP
            self.services.models.unload_all()
        module = type(error).__module__
        kind = type(error).__qualname__ if module == "builtins" else f"{module}.{type(error).__qualname__}"
        log.warning("node failed", node=job.node_id, node_type=job.class_type, error=kind)
        details = {
            "exception_message": f"{error}\n{tip}",
            "exception_type": kind,
            "traceback": traceback.format_tb(error.__traceback__),
            "current_inputs": {name: [_plain(value) for value in values] for name, values in inputs.items()},
            "current_outputs": list(run.item.prompt),
        }
        self._message(run, "execution_error", self._where(run, job) | details)

    def _fingerprint(self, run: Run, node_id: str) -> Any:
        """IS_CHANGED; written into the node (and so into saved PNGs) and trusted when it is there already."""
        node = run.item.prompt[node_id]
        definition = self.nodes[node["class_type"]]
        if definition.fingerprint is None:
            return False
        if "is_changed" not in node:
            constants = {name: values[0] for name, values in self._inputs_without_links(node).items()}
            try:
                node["is_changed"] = [definition.fingerprint(self._job(run, node_id), **constants)]
            except Exception as error:  # a missing file: the node itself will say so, if it runs
                log.debug("fingerprint failed", node=node_id, error=str(error))
                return float("nan")
        return node["is_changed"]

    def _inputs_without_links(self, node: dict[str, Any]) -> dict[str, list[Any]]:
        definition = self.nodes[node["class_type"]]
        inputs = node.get("inputs")
        items = inputs.items() if isinstance(inputs, dict) else ()  # nodes no output needs were never validated
        return {name: [None if is_link(value) else value] for name, value in items if definition.declares(name)}

    def _job(self, run: Run, node_id: str) -> Job:
        kind = run.item.prompt[node_id]["class_type"]
        state = self._states.setdefault((node_id, kind, self.user), {})
        return Job(self.services, run.progress, node_id, kind, run.item.prompt, run.extra_data, run.sid, state)

    def _where(self, run: Run, job: Job) -> dict[str, Any]:
        return {"node_id": job.node_id, "node_type": job.class_type, "executed": list(run.executed)}

    def _message(self, run: Run, event: str, data: dict[str, Any], *, broadcast: bool = False) -> None:
        data = {"prompt_id": run.item.prompt_id} | data | {"timestamp": now_ms()}
        run.messages.append((event, data))
        if run.sid is not None or broadcast:
            self.services.sockets.send(event, data, run.sid)

    def _executed(self, run: Run, node_id: str, ui: dict[str, Any] | None) -> None:
        data = {"node": node_id, "display_node": node_id, "output": ui, "prompt_id": run.item.prompt_id}
        self.services.sockets.send("executed", data, run.sid)

    def _sender(self, sid: str | None) -> Callable[[str, dict[str, Any]], None]:
        return lambda event, data: self.services.sockets.send(event, data, sid)


def _execute(node: Node, job: Job, inputs: dict[str, list[Any]]) -> Entry:
    """Map a node over its inputs: lists of different lengths repeat their last value."""
    if node.input_is_list:
        results = [node.run(job, **inputs)]
    else:
        length = max((len(values) for values in inputs.values()), default=1)
        results = []
        for index in range(length):
            job.check()
            results.append(
                node.run(job, **{name: values[min(index, len(values) - 1)] for name, values in inputs.items()})
            )
    is_list = node.output_is_list or (False,) * len(node.outputs)
    values: list[list[Any]] = [[] for _ in node.outputs]
    ui: dict[str, Any] = {}
    for result in results:
        for slot, value in enumerate(result.values if isinstance(result, Shown) else result):
            values[slot] += value if is_list[slot] else [value]
        if isinstance(result, Shown):
            for name, shown in result.ui.items():
                ui[name] = [*ui.get(name, []), *shown]
    return Entry(values, ui or None)


def _meta(node_id: str) -> dict[str, Any]:
    return {"node_id": node_id, "display_node": node_id, "parent_node": None, "real_node_id": node_id}


def _plain(value: Any) -> Any:
    return value if value is None or isinstance(value, int | float | bool | str) else str(value)
