"""The engine's one worker thread: takes prompts from the queue, runs them, writes the history. No job ends it."""

import threading
from collections.abc import Callable

from backend_pool.engine.executor import Executor
from backend_pool.engine.prompt_queue import Item, Outcome, PromptQueue
from proxy.base.clock import now_ms
from proxy.base.logs import events

log = events(__name__)


class Worker:
    """A daemon thread, so that the process can end with a job in it."""

    def __init__(self, queue: PromptQueue, executor: Executor) -> None:
        self._queue = queue
        self._executor = executor
        self._thread = threading.Thread(target=self._work, name="prompt worker", daemon=True)
        self.jobs_run = 0
        self.jobs_failed = 0
        self.begins: Callable[[str], None] = lambda _prompt_id: None
        """Called before a job runs."""
        self.ended: Callable[[str], None] = lambda _prompt_id: None
        """Called when a job has run, before its history can be read."""

    def start(self) -> None:
        """Begin to take prompts."""
        self._thread.start()

    def _work(self) -> None:
        while True:
            item = self._queue.get()
            if item is not None:
                self._run(item)
            flags = self._queue.take_flags()
            if "unload_models" in flags or "free_memory" in flags:
                self._executor.services.models.unload_all()
            if "free_memory" in flags:
                self._executor.forget()

    def _run(self, item: Item) -> None:
        log.info("job started", job=item.prompt_id, nodes=len(item.prompt))
        self.begins(item.prompt_id)
        try:
            outcome = self._executor.run(item)
        except Exception as error:
            log.error("executor failed", job=item.prompt_id, exc_info=error)
            message = {"prompt_id": item.prompt_id, "exception_message": str(error), "timestamp": now_ms()}
            outcome = Outcome(False, {}, {}, [("execution_error", message)])
        self.ended(item.prompt_id)
        self._executor.services.faults.crash_at("before_history")
        self.jobs_run += 1
        self.jobs_failed += not outcome.success
        self._queue.done(outcome)
        log.info("job ended", job=item.prompt_id, success=outcome.success)
        # Last, when the history can be read: API clients wait for it.
        sid = self._executor.client_id
        if sid is not None:
            self._executor.services.sockets.send("executing", {"node": None, "prompt_id": item.prompt_id}, sid)
