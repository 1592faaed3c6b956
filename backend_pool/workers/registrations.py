"""Backends that register themselves: whose rows they have, the secret each answers to, what their heartbeats say.

The rows are the truth about who is a worker; heartbeats live in memory, and every proxy hears its own.
"""

import asyncio
import contextlib
import hashlib
import hmac
import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from sqlmodel import Session, col, func, select

from backend_pool.model import Backend
from backend_pool.worker_pack.wire import CHALLENGE, PROTOCOL, SECRET_HEADER
from backend_pool.workers.address import check_address, place_of
from backend_pool.workers.beat import Beat, Heard
from backend_pool.workers.limits import MAX_WORKERS, WorkerLimits
from backend_pool.workers.tables import Worker, WorkerToken
from backend_pool.workers.tokens import find
from proxy.base.backend_url import clean_url
from proxy.base.clock import monotonic_s, now_ms
from proxy.base.database import Database
from proxy.base.errors import BadInput, Conflict, NotAuthenticated
from proxy.base.logs import events

log = events(__name__)

SOURCE = "worker"
SILENT_BEATS = 4
"""So many missing heartbeats count as a failed probe."""
MAX_NAME = 64


@dataclass(frozen=True)
class Known:
    """A worker's row."""

    worker_id: str
    token_id: int


class Workers:
    """All workers of a pool. `on_news` is called with a backend's id when it has registered, restarted or changed."""

    def __init__(self, db: Database, key: bytes, users_dir: Path, heartbeat_s: float) -> None:
        self._db = db
        self._key = key
        self._users_dir = users_dir
        self._known: dict[int, Known] = {}
        self._heard: dict[int, Heard] = {}
        self._proof: str | None = None
        self._limits = WorkerLimits(heartbeat_s)
        self.heartbeat_s = heartbeat_s
        self.on_news: list[Callable[[int, bool], None]] = []
        """(backend id, whether its rows have changed)."""

    async def reload(self) -> None:
        """Read whose rows are workers'."""
        rows = await self._db.read(lambda s: list(s.exec(select(Worker)).all()))
        self._known = {row.backend_id: Known(row.id, row.token_id) for row in rows}
        self._heard = {key: heard for key, heard in self._heard.items() if key in self._known}

    def known(self, backend_id: int) -> Known | None:
        """The worker behind a row, None for a stock backend."""
        return self._known.get(backend_id)

    def headers(self, backend_id: int) -> dict[str, str]:
        """What to send along to a backend."""
        known = self._known.get(backend_id)
        return {} if known is None else {SECRET_HEADER: self._secret(known)}

    def heard(self, backend_id: int) -> Heard | None:
        """Its last heartbeat that came to this process."""
        return self._heard.get(backend_id)

    def silent_s(self, backend_id: int) -> float | None:
        """For how long its heartbeats are missing; None while they are not, or when none ever came here."""
        heard = self._heard.get(backend_id)
        silence = None if heard is None else monotonic_s() - heard.at_s
        return silence if silence is not None and silence > SILENT_BEATS * self.heartbeat_s else None

    async def beat(self, token: str, beat: Beat, peer: str | None, own_port: int | None = None) -> dict[str, object]:
        """Take a heartbeat; the answer to it. Raises NotAuthenticated, BadInput, Conflict, TooManyRequests.

        `own_port` is where this server took it.
        """
        if beat.protocol != PROTOCOL:
            raise BadInput("This worker pack is of another version than the server. Install it again from here.")
        url = clean_url(beat.url) if beat.url else _address(peer, beat.port)
        token_id, found = await self._db.read(lambda s: _standing(s, token, beat.worker_id, url))
        self._limits.beats.take(token_id, "heartbeats")
        changed = found is None
        if found is None:
            await check_address(url, own_port)
            self._limits.registrations.take(token_id, "registrations")
            self._check_alone(beat, url)
            found = await self._db.write(lambda s: _register(s, token, beat, url))
        backend_id, known = found
        self._known[backend_id] = known
        shared = await asyncio.to_thread(self._is_shared, beat.shared_proof)
        before = self._heard.get(backend_id)
        self._heard[backend_id] = Heard(beat, monotonic_s(), shared, url)
        if changed:
            log.info("worker registered", backend=beat.name, gpu=beat.gpu, comfyui=beat.comfyui, pack=beat.pack)
        news = before is None or (before.beat.instance, before.beat.inventory, before.shared) != (
            beat.instance,
            beat.inventory,
            shared,
        )
        if changed or news:
            for heard in self.on_news:
                heard(backend_id, changed)
        return {"secret": self._secret(known), "every_s": self.heartbeat_s}

    def _check_alone(self, beat: Beat, url: str) -> None:
        """Two that live must not take each other's row in turns. Raises Conflict."""
        for backend_id, known in self._known.items():
            heard = self._heard.get(backend_id)
            if heard is None or heard.beat.instance == beat.instance or self.silent_s(backend_id) is not None:
                continue
            if known.worker_id == beat.worker_id:
                raise Conflict(
                    f"A ComfyUI of the same installation and port works at {heard.url} already. Give this one another "
                    "port or a checkout of its own with the worker pack, or wait until that one has ended."
                )
            if place_of(heard.url) == place_of(url):
                raise Conflict(
                    f"Another ComfyUI that works has the address {url}. Give each its own --advertise; where they "
                    "share an installation, {port} in it stands for the port of each."
                )

    def _secret(self, known: Known) -> str:
        words = f"worker secret {known.token_id} {known.worker_id}"
        return hmac.new(self._key, words.encode(), hashlib.sha256).hexdigest()

    def _is_shared(self, proof: str | None) -> bool:
        """Whether a worker has read the challenge in the users' directory, which is made when it is first needed."""
        if self._proof is None:
            self._proof = hashlib.sha256(_challenge(self._users_dir)).hexdigest()
        return proof is not None and hmac.compare_digest(proof, self._proof)


def _challenge(folder: Path) -> bytes:
    path = folder / CHALLENGE
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
            out.write(secrets.token_hex(32))
    return path.read_bytes()


def _address(peer: str | None, port: int | None) -> str:
    if peer is None or port is None:
        raise BadInput("Install the worker pack with --advertise URL: its address cannot be seen from here.")
    return f"http://[{peer}]:{port}" if ":" in peer else f"http://{peer}:{port}"


def _token(s: Session, token: str) -> WorkerToken:
    found = find(s, token)
    if found is None or found.id is None:
        raise NotAuthenticated("This worker's token does not count (any more). Make one: worker-pack token.")
    return found


def _standing(s: Session, token: str, worker_id: str, url: str) -> tuple[int, tuple[int, Known] | None]:
    """The token's id, and the backend of a worker that is registered just so already."""
    token_id = _token(s, token).id
    assert token_id is not None
    query = select(Worker).where(Worker.id == worker_id, Worker.backend_id == Backend.id, Backend.url == url)
    worker = s.exec(query).first()
    if worker is None or worker.token_id != token_id:
        return token_id, None
    return token_id, (worker.backend_id, Known(worker.id, worker.token_id))


def _register(s: Session, token: str, beat: Beat, url: str) -> tuple[int, Known]:
    """Give a worker its row: its own at a new address, or a new one."""
    row = _token(s, token)
    assert row.id is not None
    worker = s.get(Worker, beat.worker_id)
    if worker is not None:
        _check_owner(s, worker, row)
        worker.token_id = row.id
    at_address = _at(s, url, worker)
    if at_address is not None:
        _clear_address(s, at_address, row, worker)
    if worker is None:
        _check_number(s, row.id)
        backend = at_address or _add(s, beat, url)
        worker = Worker(id=beat.worker_id, backend_id=backend.key, token_id=row.id)
        s.add(worker)
    found = s.get(Backend, worker.backend_id)
    assert found is not None  # the worker's row goes with it
    found.url = url
    s.flush()
    return worker.backend_id, Known(worker.id, worker.token_id)


def _at(s: Session, url: str, worker: Worker | None) -> Backend | None:
    """Another's row with this address, however it is spelled."""
    place = place_of(url)
    rows = (row for row in s.exec(select(Backend)).all() if worker is None or row.id != worker.backend_id)
    return next((row for row in rows if place_of(row.url) == place), None)


def _check_number(s: Session, token_id: int) -> None:
    query = select(func.count()).select_from(Worker).where(Worker.token_id == token_id)
    if s.exec(query).one() >= MAX_WORKERS:
        raise Conflict(
            f"This token has {MAX_WORKERS} workers already. Remove those that are gone (backend remove NAME), or make "
            "another token (worker-pack token)."
        )


def _check_owner(s: Session, worker: Worker, token: WorkerToken) -> None:
    """A token that counts keeps its worker: nobody else's token may have its secret told."""
    if worker.token_id == token.id:
        return
    owner = s.get(WorkerToken, worker.token_id)
    if owner is not None and owner.revoked_ms is None:
        raise Conflict(f"This worker is registered with the token {owner.name!r}. Revoke that one first.")


def _clear_address(s: Session, backend: Backend, token: WorkerToken, worker: Worker | None) -> None:
    """Another row has the address: an earlier installation makes way, never what an administrator has added."""
    other = s.exec(select(Worker).where(Worker.backend_id == backend.id)).first()
    if other is not None:
        _check_owner(s, other, token)
    if backend.source != SOURCE:
        raise Conflict(
            f"The backend {backend.name!r} at this address was added by an administrator. Remove it first: "
            f"comfy-cluster backend remove {backend.name}"
        )
    if other is not None:
        s.delete(other)
        s.flush()
    if worker is not None:
        s.delete(backend)
        s.flush()


def _add(s: Session, beat: Beat, url: str) -> Backend:
    base = (beat.name.strip() or urlsplit(url).netloc)[: MAX_NAME - 16]
    if not base.isprintable():
        raise BadInput("A worker's name has printable characters only.")
    port, short = urlsplit(url).port or 80, beat.worker_id[:8]
    labels = [base, f"{base}:{port}", f"{base}-{short}", f"{base}-{short}:{port}"]
    taken = set(s.exec(select(Backend.name).where(col(Backend.name).in_(labels))).all())
    label = next((label for label in labels if label not in taken), None)
    if label is None:
        raise Conflict(f"There is a backend {base!r} already. Give this one another --name.")
    row = Backend(name=label, url=url, source=SOURCE, created_ms=now_ms())
    s.add(row)
    s.flush()
    return row
