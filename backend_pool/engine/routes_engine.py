"""The engine's own routes: /engine says what it is and has done, /engine/faults takes orders for faults."""

import asyncio
import ipaddress
import os
import time
from dataclasses import asdict

from aiohttp import web

from backend_pool.engine.answers import engine_of, json_object
from backend_pool.engine.engine import Engine, block
from backend_pool.engine.faults import Fault, crash
from proxy.base.errors import Forbidden

routes = web.RouteTableDef()

ENGINE_VERSION = 1
ANSWER_FIRST_S = 0.05


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
            "nodes": {
                name: {"runs": timing.runs, "seconds": round(timing.seconds, 4)}
                for name, timing in list(engine.executor.timings.items())
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
    engine = engine_of(request)
    fault = engine.faults.arm(await json_object(request))
    if fault.at == "now":
        asyncio.get_running_loop().call_later(ANSWER_FIRST_S, _strike, engine, fault)
    return web.json_response(asdict(fault))


@routes.delete("/engine/faults")
async def clear(request: web.Request) -> web.Response:
    """Disarm all, let hung jobs go."""
    _allow(request)
    engine_of(request).faults.clear()
    return web.json_response({"faults": []})


def _strike(engine: Engine, fault: Fault) -> None:
    if fault.fault == "crash":
        crash()
    if fault.fault == "drop_ws":
        engine.sockets.abort_all_soon()
    if fault.fault == "hang_server":
        block(asyncio.get_running_loop(), fault.seconds)


def _allow(request: web.Request) -> None:
    if not engine_of(request).options.faults:
        raise Forbidden("Faults are off. Start the engine with --faults to allow them.")
    peer = request.transport.get_extra_info("peername") if request.transport else None
    if not peer or not ipaddress.ip_address(peer[0]).is_loopback:
        raise Forbidden("Faults are taken from this machine only.")
