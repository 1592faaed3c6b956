"""Hooks the pack into the ComfyUI that imports it, or says in one line why it does not and leaves all as it is."""

import importlib
import logging
from pathlib import Path

from .comfy_hooks import missing, version_problem
from .config import FILE, ConfigProblem, load
from .heartbeat import Heartbeat
from .pack import Pack
from .routes import Routes, door

log = logging.getLogger("comfyui-cluster-worker")

WORK_DIR = "__cluster_worker"
LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104 - where to look for ourselves


def boot() -> None:
    """Called once, while ComfyUI loads its custom nodes: nothing is served yet, and no prompt runs."""
    try:
        problem = _problem()
        if problem is None:
            _start()
        else:
            log.error("The cluster's worker pack does nothing: %s.", problem)
    except Exception:  # whatever it is, ComfyUI starts
        log.exception("The cluster's worker pack could not start and does nothing")


def _problem() -> str | None:
    try:
        load(_here() / FILE)
        version = str(importlib.import_module("comfyui_version").__version__)
    except ConfigProblem as error:
        return str(error).rstrip(".")
    except ImportError:
        return "this is no ComfyUI with a version"
    unknown = version_problem(version)
    if unknown is not None:
        return unknown
    lacking = missing()
    return f"this ComfyUI {version} lacks what it hooks into: {', '.join(lacking)}" if lacking else None


def _start() -> None:
    from .comfy_host import ComfyHost

    config = load(_here() / FILE)
    server = importlib.import_module("server").PromptServer.instance
    args = importlib.import_module("comfy.cli_args").args
    host = ComfyHost()
    user_directory = importlib.import_module("folder_paths").get_user_directory()
    pack = Pack(config, host, Path(user_directory) / WORK_DIR, int(args.port))
    host.attach(pack.slot)
    server.app.middlewares.insert(0, door(pack))
    Routes(pack).add_to(server.app.router)
    address = str(args.listen).split(",")[0]
    found = (LOOPBACK.get(address, address), int(args.port))
    Heartbeat(config, pack.beat, pack.learn, lambda: found).start()
    log.info("The cluster's worker pack is on; it registers with %s", config.server)


def _here() -> Path:
    return Path(__file__).parent
