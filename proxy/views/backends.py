"""Backends as the API and the admin page show them: the row, what the pool observed, what runs there for whom."""

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path

from backend_pool.backends.member import Level, Member
from backend_pool.backends.registry import REMOVABLE
from backend_pool.backends.restart_rows import BY_HAND
from backend_pool.model import Backend
from proxy.base.backend_url import shown_url
from proxy.base.log_file import tail
from proxy.bodies.backends import BackendHealth, BackendInfo, ManagedInfo, RunningInfo, WorkerInfo
from proxy.views.deps import Deps
from proxy.views.jobs import JobView


async def backend_infos(deps: Deps, rows: Sequence[Backend] | None = None) -> list[BackendInfo]:
    """Those backends, or all of them, oldest first."""
    rows = await deps.registry.listing() if rows is None else rows
    members = [member for row in rows if (member := deps.pool.member(row.id)) is not None]
    jobs = await deps.views.some([member.job for member in members if member.job is not None])
    names = {user.key: user.name for user in await deps.access.users.listing()} if jobs else {}
    logs = await asyncio.to_thread(_logs, deps, members)
    return [_info(deps, row, jobs, names, logs) for row in rows]


async def backend_info(deps: Deps, row: Backend) -> BackendInfo:
    """One of them."""
    return (await backend_infos(deps, [row]))[0]


def _info(
    deps: Deps, row: Backend, jobs: Mapping[int, JobView], names: Mapping[int, str], logs: Mapping[int, str]
) -> BackendInfo:
    member = deps.pool.member(row.key)
    device = _device(member)
    return BackendInfo(
        id=row.key,
        name=row.name,
        url=shown_url(row.url),
        source=row.source,
        level=member.level if member else Level.ENGINE if row.source == "engine" else Level.STOCK,
        mode=row.mode,
        health=BackendHealth(member.health) if member else BackendHealth.UNKNOWN,
        error=member.error if member else None,
        labels=row.labels,
        note=row.note,
        drain_by_ms=row.drain_by_ms,
        empty=member is None or member.is_empty,
        held=member.held if member else None,
        quarantine=row.quarantine,
        quarantine_ms=row.quarantine_ms,
        restart=deps.restarts.stage(row),
        restartable=row.source not in BY_HAND or (member is not None and member.worker is not None),
        removable=row.source in REMOVABLE,
        managed=_managed(member, logs.get(row.key)),
        job_id=member.job if member else None,
        running=_running(jobs.get(member.job) if member and member.job is not None else None, names),
        collecting=len(member.collecting) if member else 0,
        done=member.done if member else 0,
        failed=member.failed if member else 0,
        models=sorted(member.warmth.models) if member else [],
        worker=_worker(deps, member),
        comfyui_version=_version(member),
        device=str(device["name"]) if "name" in device else None,
        vram_total=_bytes(device.get("vram_total")),
        vram_free=_bytes(device.get("vram_free")),
        seen_ms=member.seen_ms if member else None,
        left_files=member.client.remains.files if member else 0,
        left_bytes=member.client.remains.size if member else 0,
    )


def _running(view: JobView | None, names: Mapping[int, str]) -> RunningInfo | None:
    if view is None:
        return None
    job = view.job
    return RunningInfo(
        id=job.key,
        prompt_id=job.prompt_id,
        user_id=job.user_id,
        user=names.get(job.user_id),
        since_ms=job.assigned_ms,
        expected_end_ms=view.outlook.end_ms,
    )


def _managed(member: Member | None, log: str | None) -> ManagedInfo | None:
    state = member.managed if member is not None else None
    if state is None:
        return None
    return ManagedInfo(
        state=state.state,
        since_ms=state.since_ms,
        error=state.error,
        deaths=state.deaths,
        retry_ms=state.retry_ms,
        log=log or None,
    )


def _logs(deps: Deps, members: Sequence[Member]) -> dict[int, str]:
    """Ends of the logs of managed ones that have crashed. Blocking."""
    folder = Path(deps.settings.data_dir) / "logs"
    found = {}
    for member in members:
        if member.managed is not None and member.managed.error is not None:
            found[member.key] = tail(folder / f"{member.row.name}.log")
    return found


def _device(member: Member | None) -> dict[str, object]:
    devices = member.stats.get("devices") if member else None
    first = devices[0] if isinstance(devices, list) and devices else None
    return first if isinstance(first, dict) else {}


def _worker(deps: Deps, member: Member | None) -> WorkerInfo | None:
    heard = deps.pool.workers.heard(member.key) if member is not None and deps.pool.workers is not None else None
    if heard is None:
        return None
    beat = heard.beat
    return WorkerInfo(
        pack=beat.pack, comfyui=beat.comfyui, torch=beat.torch, gpu=beat.gpu, open=beat.open, shared=heard.shared
    )


def _version(member: Member | None) -> str | None:
    system = member.stats.get("system") if member else None
    found = system.get("comfyui_version") if isinstance(system, dict) else None
    return str(found) if found is not None else None


def _bytes(value: object) -> int | None:
    return int(value) if isinstance(value, int | float) and 0 <= value < 2**63 else None
