"""The composition root: everything one engine process is made of, built once on its event loop."""

import asyncio
import time
from dataclasses import dataclass, field

from backend_pool.engine.executor import Executor
from backend_pool.engine.faults import Faults
from backend_pool.engine.files import Directories
from backend_pool.engine.job import Services
from backend_pool.engine.models import Models
from backend_pool.engine.nodes.catalogue import NODES, Catalogue
from backend_pool.engine.options import Options
from backend_pool.engine.prompt_queue import PromptQueue
from backend_pool.engine.sockets import Sockets
from backend_pool.engine.worker import Worker

FOREVER_S = 1e9


@dataclass
class Engine:
    """What routes work with."""

    options: Options
    directories: Directories
    models: Models
    catalogue: Catalogue
    faults: Faults
    sockets: Sockets
    queue: PromptQueue
    executor: Executor
    worker: Worker
    next_number: float = 0
    started: float = field(default_factory=time.monotonic)

    def queue_info(self) -> dict[str, dict[str, int]]:
        """Body of GET /prompt and of `status` frames."""
        return {"exec_info": {"queue_remaining": self.queue.remaining()}}


def build(options: Options) -> Engine:
    """Wire an engine together; call on the running event loop. The worker is not started."""
    loop = asyncio.get_running_loop()
    directories = Directories(options.base_dir)
    models = Models(directories.models, options.checkpoints, options.vram_mb, options.model_load_ms, options.without)
    faults = Faults()
    sockets = Sockets(loop)
    queue = PromptQueue(lambda: sockets.send("status", {"status": engine.queue_info()}))
    services = Services(
        options,
        directories,
        models,
        faults,
        sockets,
        queue.interrupted,
        # time.sleep on purpose: the loop must not answer. SIGTERM still ends the process.
        block_loop=lambda seconds: block(loop, seconds),
    )
    nodes = {name: node for name, node in NODES.items() if name not in options.without_nodes}
    executor = Executor(services, nodes)
    catalogue = Catalogue(directories, models, nodes)
    worker = Worker(queue, executor)
    engine = Engine(options, directories, models, catalogue, faults, sockets, queue, executor, worker)
    return engine


def block(loop: asyncio.AbstractEventLoop, seconds: float | None) -> None:
    """Stop a loop from answering (the hang_server fault)."""
    loop.call_soon_threadsafe(time.sleep, FOREVER_S if seconds is None else seconds)
