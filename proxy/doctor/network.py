"""The doctor's questions that go over a socket: our port, the schema, each registered backend."""

import asyncio
import errno
import socket
import time
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import httpx

from backend_pool.backends.registry import Registry
from backend_pool.model import Backend, BackendMode
from proxy.base.backend_url import shown_url
from proxy.base.database import Database
from proxy.base.errors import ClusterError
from proxy.base.schema import state_of
from proxy.base.settings import Settings
from proxy.data_dir import held
from proxy.doctor.finding import Finding, bad, note
from proxy.doctor.host import SeenHost
from proxy.doctor.sandbox import within_reach

TIMEOUT_S = 5.0
NODES_TIMEOUT_S = 30.0
CLOCK_SKEW_S = 30.0
MIB = 1 << 20


async def ask(settings: Settings, host: SeenHost | None = None) -> list[Finding]:
    """Every finding, in a steady order."""
    timeout = httpx.Timeout(TIMEOUT_S, read=NODES_TIMEOUT_S)
    schema, rows = await asyncio.to_thread(_stored, settings)
    async with httpx.AsyncClient(trust_env=False, timeout=timeout) as client:
        port, backends = await asyncio.gather(
            _port(settings, client), asyncio.gather(*(_backend(row, client) for row in rows))
        )
    found = [*schema, port, *(finding for some in backends for finding in some)]
    found += within_reach(settings, rows, host)
    if not rows and settings.engines is None and settings.gpus is None:
        found.append(note("backends", "none is registered: an embedded engine will draw. Add one: backend add URL"))
    return found


def _stored(settings: Settings) -> tuple[list[Finding], list[Backend]]:
    """The schema's state and the backends: rows, and those of the settings that no start has registered yet."""
    configured = [Backend(name=url, url=url, source="settings", created_ms=0) for url in settings.backends]
    url = settings.database
    if url.startswith("sqlite") and not Path(url.removeprefix("sqlite:///")).exists():
        return [], configured
    try:
        db = Database(url)
        try:
            current, newest, known = state_of(db)
            if current is None:
                return [note("schema", "the database is empty: the next start fills it")], configured
            if not known:
                return [
                    bad("schema", f"{current} was made by a newer version: start that one, or restore its copy")
                ], configured
            rows = Registry(db).listing_now() if current == newest else []
        finally:
            db.close()
    except ClusterError as error:
        return [bad("schema", f"the database does not answer: {error.message} {error.details}".strip())], configured
    state = Finding("schema", current if current == newest else f"{current}; the next start makes it {newest}")
    if not held(settings.data_dir):
        rows = [row for row in rows if row.source != "engine"]  # they live as long as the server
    return [state], rows + [row for row in configured if row.url not in {known.url for known in rows}]


async def _port(settings: Settings, client: httpx.AsyncClient) -> Finding:
    address = f"{settings.host}:{settings.port}"
    try:
        family = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)[0][0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((settings.host, settings.port))
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            return bad("port", f"{address} cannot be listened on: {error.strerror or error}. Choose another --host")
    else:
        return Finding("port", f"{address} is free")
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(settings.host, settings.host)  # noqa: S104 - compared, not bound
    try:
        answer = await client.get(f"http://{host}:{settings.port}/cluster/readyz", timeout=TIMEOUT_S)
        state = answer.json()
        problems = "; ".join(state["problems"])
    except (httpx.HTTPError, ValueError, KeyError, TypeError):
        return bad("port", f"{address} is used by another program: stop it, or choose another --port")
    if problems:
        return bad("port", f"a cluster proxy serves {address}, but is not ready: {problems}")
    return Finding("port", f"a cluster proxy serves {address} and is ready")


async def _backend(row: Backend, client: httpx.AsyncClient) -> list[Finding]:
    what, address = f"backend {row.name}", shown_url(row.url)
    begun = time.monotonic()
    try:
        answer = await client.get(f"{row.url}/system_stats", timeout=TIMEOUT_S)
        took_ms = (time.monotonic() - begun) * 1000
        stats = answer.raise_for_status().json()
        nodes = (await client.get(f"{row.url}/object_info")).raise_for_status().json()
        version = stats["system"].get("comfyui_version", "of unknown version")
        detail = f"{address}, ComfyUI {version}, {_devices(stats)}, {len(nodes)} nodes, {took_ms:.0f} ms"
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        reason = str(error).replace(row.url, address) or type(error).__name__
        return [bad(what, f"{address} does not answer ({reason}): is it running?")]
    except (ValueError, KeyError, TypeError, AttributeError):
        return [bad(what, f"{address} answers, but not as a ComfyUI: check the URL")]
    if not nodes:
        return [bad(what, f"{address} has no nodes: look at its log")]
    skew = _skew_s(answer)
    found = [Finding(what, detail)]
    if row.mode is not BackendMode.ACTIVE:
        found = [note(what, f"{detail}; {row.mode.value}, gets no new jobs")]
    if skew is not None and abs(skew) > CLOCK_SKEW_S:
        found.append(note(what, f"its clock differs by {skew:.0f} s: set both by NTP"))
    return found


def _devices(stats: dict[str, Any]) -> str:
    names = [f"{d.get('name', '?')} ({d.get('vram_total', 0) // MIB} MiB)" for d in stats.get("devices") or []]
    return ", ".join(names) or "no device"


def _skew_s(answer: httpx.Response) -> float | None:
    try:
        return parsedate_to_datetime(answer.headers["date"]).timestamp() - time.time()
    except (KeyError, ValueError, TypeError):
        return None
