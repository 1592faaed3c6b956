"""The engine's own routes: /engine says what it is and has done, /engine/faults takes orders for faults."""

import ipaddress
import os
import time

from aiohttp import web

from backend_pool.engine.answers import engine_of, json_object
from proxy.base.errors import Forbidden

routes = web.RouteTableDef()

ENGINE_VERSION = 1
HANG_DELAY_S = 0.05


@routes.get("/engine")
async def about(request: web.Request) -> web.Response:
    """Name, loaded models, counters."""
    engine = engine_of(request)
    return web.json_response(
        {
            "engine": "embedded",
            "version": ENGINE_VERSION,
            "name": engine.options.name,
            "pid": os.getpid(),
            "uptime_s": round(time.monotonic() - engine.started, 3),
            "step_ms": engine.options.step_ms,
            "vram_mb": engine.models.vram_mb,
            "loaded_models": engine.models.loaded(),
            "counters": {
                "jobs_run": engine.worker.jobs_run,
                "jobs_failed": engine.worker.jobs_failed,
                "model_loads": engine.models.loads,
                "model_evictions": engine.models.evictions,
                "faults_struck": engine.faults.struck,
            },
            "faults": engine.faults.armed(),
        }
    )


@routes.get("/engine/faults")
async def armed(request: web.Request) -> web.Response:
    """What is still to come."""
    _allow(request)
    return web.json_response({"faults": engine_of(request).faults.armed()})


@routes.post("/engine/faults")
async def arm(request: web.Request) -> web.Response:
    """Arm one fault."""
    _allow(request)
    return web.json_response(engine_of(request).faults.arm(await json_object(request)))


@routes.delete("/engine/faults")
async def clear(request: web.Request) -> web.Response:
    """Disarm all, let hung jobs go."""
    _allow(request)
    engine_of(request).faults.clear()
    return web.json_response({"faults": []})


def _allow(request: web.Request) -> None:
    if not engine_of(request).options.faults:
        raise Forbidden("Faults are off. Start the engine with --faults to allow them.")
    peer = request.transport.get_extra_info("peername") if request.transport else None
    if not peer or not ipaddress.ip_address(peer[0]).is_loopback:
        raise Forbidden("Faults are taken from this machine only.")
