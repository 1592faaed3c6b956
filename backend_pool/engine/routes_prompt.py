"""POST and GET of /prompt, /queue, /history, /interrupt, /free."""

import asyncio
import math
import uuid
from typing import Any

from aiohttp import web

from backend_pool.engine.answers import bad_request, engine_of, json_object
from backend_pool.engine.engine import Engine
from backend_pool.engine.prompt_queue import Item
from backend_pool.prompts.validation import Verdict, validate
from proxy.base.clock import now_ms
from proxy.base.errors import error_body

routes = web.RouteTableDef()

SENSITIVE = ("auth_token_comfy_org", "api_key_comfy_org")


@routes.get("/prompt")
async def get_prompt(request: web.Request) -> web.Response:
    """How many prompts wait or run."""
    return web.json_response(engine_of(request).queue_info())


@routes.post("/prompt")
async def post_prompt(request: web.Request) -> web.Response:
    """Validate and queue a prompt."""
    engine = engine_of(request)
    status, answer = await accept(engine, await json_object(request))
    if status != 200:
        return web.json_response(answer, status=status)
    if engine.faults.take("lose_answer") is not None and request.transport is not None:
        request.transport.abort()
    response = web.json_response(answer)
    await response.prepare(request)
    await response.write_eof()
    engine.faults.crash_at("after_submit")
    return response


async def accept(engine: Engine, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """Status and body of the answer to a prompt; 200 when it is queued."""
    refusal = engine.faults.take("refuse")
    if refusal is not None:
        message = refusal.message or "Refused by an injected fault."
        return refusal.status, error_body("injected_fault", message) | {"node_errors": {}}
    number = _number(engine, body)
    if "prompt" not in body:
        error = error_body("no_prompt", "No prompt provided", "No prompt provided")
        return 400, error | {"node_errors": {}}
    extra_data = _extra_data(body)
    verdict = await asyncio.to_thread(judge, engine, body)
    if not verdict.ok:
        return 400, verdict.body()
    sensitive = {key: extra_data.pop(key) for key in SENSITIVE if key in extra_data}
    extra_data["create_time"] = now_ms()
    prompt_id = str(body.get("prompt_id", uuid.uuid4()))
    engine.queue.put(Item(number, prompt_id, verdict.prompt, extra_data, verdict.outputs, sensitive))
    engine.faults.crash_at("before_submit_answer")
    return 200, {"prompt_id": prompt_id, "number": number, "node_errors": verdict.node_errors}


@routes.get("/queue")
async def get_queue(request: web.Request) -> web.Response:
    """Running and pending prompts."""
    running, pending = engine_of(request).queue.items()
    return web.json_response(
        {"queue_running": [item.shown() for item in running], "queue_pending": [item.shown() for item in pending]}
    )


@routes.post("/queue")
async def post_queue(request: web.Request) -> web.Response:
    """Clear the queue or delete pending prompts."""
    queue = engine_of(request).queue
    body = await json_object(request)
    if body.get("clear"):
        queue.clear()
    for prompt_id in _ids(body):
        queue.delete(prompt_id)
    return web.Response()


@routes.get("/history")
async def get_history(request: web.Request) -> web.Response:
    """Finished prompts, oldest first; `max_items` without `offset` gives the newest."""
    entries = list(engine_of(request).queue.history().items())
    count, offset = (_whole(request, name) for name in ("max_items", "offset"))
    if offset is None or offset < 0:
        offset = 0 if count is None else max(0, len(entries) - count)
    end = None if count is None else offset + max(count, 0)
    return web.json_response(dict(entries[offset:end]))


@routes.get("/history/{prompt_id}")
async def get_history_of(request: web.Request) -> web.Response:
    """One finished prompt, or `{}`."""
    return web.json_response(engine_of(request).queue.history(request.match_info["prompt_id"]))


@routes.post("/history")
async def post_history(request: web.Request) -> web.Response:
    """Clear the history or delete entries."""
    queue = engine_of(request).queue
    body = await json_object(request)
    if body.get("clear"):
        queue.clear_history()
    for prompt_id in _ids(body):
        queue.delete_history(prompt_id)
    return web.Response()


@routes.post("/interrupt")
async def post_interrupt(request: web.Request) -> web.Response:
    """Stop the running prompt, or only if it is the one named."""
    try:
        body = await json_object(request, empty_allowed=True)
    except web.HTTPBadRequest:  # as in ComfyUI, a body that says nothing is no reason not to stop
        body = {}
    engine_of(request).queue.interrupt(body.get("prompt_id") or None)
    return web.Response()


@routes.post("/free")
async def post_free(request: web.Request) -> web.Response:
    """Unload models, forget results: done by the worker between jobs."""
    body = await json_object(request)
    for name in ("unload_models", "free_memory"):
        if body.get(name):
            engine_of(request).queue.set_flag(name)
    return web.Response()


def judge(engine: Engine, body: dict[str, Any]) -> Verdict:
    """What validation says of a prompt. Blocking."""
    return validate(
        body["prompt"],
        engine.catalogue.object_info(),
        targets=body.get("partial_execution_targets"),
        custom=engine.catalogue.invalid_file,
    )


def _number(engine: Engine, body: dict[str, Any]) -> float:
    if "number" not in body:
        number = engine.next_number
        engine.next_number += 1
        return -number if body.get("front") else number
    try:
        number = float(body["number"])
    except (TypeError, ValueError, OverflowError) as error:
        raise bad_request("number must be a number.", str(error)) from error
    if not math.isfinite(number):
        raise bad_request("number must be finite.", str(number))
    return number


def _extra_data(body: dict[str, Any]) -> dict[str, Any]:
    extra_data = body.get("extra_data", {})
    if not isinstance(extra_data, dict):
        raise bad_request("extra_data must be an object.", f"Received {type(extra_data).__name__}")
    extra_data = dict(extra_data)
    if "client_id" in body:
        extra_data["client_id"] = body["client_id"]
    if not isinstance(extra_data.get("client_id"), str | None):
        raise bad_request("client_id must be a string.", "")
    return extra_data


def _ids(body: dict[str, Any]) -> list[Any]:
    ids = body.get("delete", [])
    if not isinstance(ids, list):
        raise bad_request("delete must be a list of prompt ids.", f"Received {type(ids).__name__}")
    return ids


def _whole(request: web.Request, name: str) -> int | None:
    text = request.query.get(name)
    try:
        return None if text is None else int(text)
    except ValueError as error:
        raise bad_request(f"{name} must be an integer.", str(error)) from error
