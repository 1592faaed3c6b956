"""What administrators do to backends over the JSON API. Each change is logged with who made it."""

from pydantic import BaseModel

from backend_pool.backends.change import Change
from backend_pool.backends.housekeeping import free
from backend_pool.backends.registry import REMOVABLE
from backend_pool.errors import BackendError
from backend_pool.model import Backend, BackendMode
from proxy.api.operations import Call
from proxy.base.clock import now_ms
from proxy.base.errors import BadInput, Conflict, NotFound, Unavailable
from proxy.base.logs import events
from proxy.bodies.backends import BackendChange, BackendInfo, BackendList, NewBackend, RestartAll
from proxy.bodies.models import Done
from proxy.views.backends import backend_info, backend_infos
from proxy.views.pool_figures import pool_figures

log = events(__name__)


async def backends(call: Call) -> BaseModel:
    """All backends, oldest first."""
    figures = pool_figures(call.deps.jobs.dispatcher.gaps)
    return BackendList(backends=await backend_infos(call.deps), figures=figures)


async def add_backend(call: Call) -> BaseModel:
    """Register a ComfyUI by URL."""
    new = call.given(NewBackend)
    row = await call.deps.registry.add(new.url, new.name or None, labels=new.labels)
    call.deps.pool.wake()
    log.info("backend added", backend=row.name, by=call.who.name)
    return await backend_info(call.deps, row)


async def change_backend(call: Call) -> BaseModel:
    """Drain (until a deadline, or its job's end), disable or activate it; change its labels and note."""
    body = call.given(BackendChange)
    if not body.model_fields_set:
        raise BadInput("Say what is to be changed: mode, labels, add_labels, remove_labels or note.")
    return await _changed(call, _change(body), body.model_dump(exclude_unset=True, mode="json"))


async def trust_backend(call: Call) -> BaseModel:
    """Out of quarantine, without waiting for a trial job to succeed."""
    info = await _changed(call, Change(trust=True), {"trust": True})
    await call.deps.pool.refresh()
    member = call.deps.pool.member(info.id)
    if member is not None:
        member.doubted.set()  # its next probe, which is due now, gives it jobs again
    return info


async def remove_backend(call: Call) -> BaseModel:
    """Forget it. One that a setting or flag brings would be back at the next start, so that is refused."""
    row = await _row(call)
    if row.source not in REMOVABLE:
        raise Conflict("This backend comes from the server's settings. Disable it here, or take it out of them.")
    await call.deps.registry.remove(call.id("id"))
    call.deps.pool.wake()
    log.info("backend taken out", backend=row.name, by=call.who.name)
    return Done()


async def free_backend(call: Call) -> BaseModel:
    """Unload its models and forget its results. Between jobs: the next one loads them again."""
    member = call.deps.pool.member(call.id("id"))
    if member is None:
        raise NotFound("There is no such backend.")
    if member.busy:
        raise Conflict("It carries a job. Try again when it has ended.")
    try:
        await free(member)
    except BackendError as error:
        raise Unavailable(f"The backend does not answer: {error}") from error
    log.info("backend freed", backend=member.row.name, by=call.who.name)
    return Done()


async def restart_backend(call: Call) -> BaseModel:
    """Begin its process anew, once its job has ended. Needs the worker pack, or a backend that is started from here."""
    row = await call.deps.restarts.rows.ask(call.id("id"))
    await call.deps.pool.refresh()
    log.info("restart asked for", backends=[row.name], by=call.who.name)
    return await backend_info(call.deps, row)


async def restart_all(call: Call) -> BaseModel:
    """Restart all that can be, or those with the given labels, one after the other: each is up again before the next.
    It ends at one that does not come back."""
    rows = await call.deps.restarts.rows.ask_all(call.given(RestartAll).labels)
    return await _asked(call, rows, "restart asked for")


async def cancel_restarts(call: Call) -> BaseModel:
    """Forget the restarts that have not begun."""
    return await _asked(call, await call.deps.restarts.rows.withdraw(), "restarts cancelled")


async def _asked(call: Call, rows: list[Backend], what: str) -> BackendList:
    await call.deps.pool.refresh()
    log.info(what, backends=[row.name for row in rows], by=call.who.name)
    return BackendList(backends=await backend_infos(call.deps, rows))


async def _changed(call: Call, change: Change, said: dict[str, object]) -> BackendInfo:
    row = await call.deps.registry.change(call.id("id"), change)
    call.deps.pool.wake()
    log.info("backend changed", backend=row.name, by=call.who.name, **said)
    return await backend_info(call.deps, row)


def _change(body: BackendChange) -> Change:
    within_s, mode = body.drain_within_s, body.mode
    if within_s is not None and mode is not BackendMode.DRAINING:
        raise BadInput("`drain_within_s` goes with the mode draining.")
    return Change(
        mode=mode,
        drain_by_ms=None if within_s is None else now_ms() + round(within_s * 1000),
        labels=None if body.labels is None else tuple(body.labels),
        add=tuple(body.add_labels),
        remove=tuple(body.remove_labels),
        note=body.note,
    )


async def _row(call: Call) -> Backend:
    backend_id = call.id("id")
    row = next((row for row in await call.deps.registry.listing() if row.id == backend_id), None)
    if row is None:
        raise NotFound("There is no such backend.")
    return row
