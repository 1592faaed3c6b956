"""One backend as this proxy sees it now: its row, its client, what was observed of it, the job it carries."""

import asyncio
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from backend_pool.backends.health import Health
from backend_pool.backends.leftovers import Leftovers
from backend_pool.backends.phase import ManagedState
from backend_pool.backends.warmth import Warmth
from backend_pool.comfy.client import ComfyClient
from backend_pool.files.pack_inputs import Hashes
from backend_pool.model import Backend, BackendMode
from backend_pool.offers.offer import Offer, Provider
from backend_pool.offers.reader import OfferReader
from backend_pool.prompts.node_info import ObjectInfo
from backend_pool.workers.client import WorkerClient
from backend_pool.workers.registrations import Known
from proxy.base.clock import monotonic_s

COLLECTING = 3
"""Jobs whose files one backend may have on their way home beside the job it executes."""


class Level(StrEnum):
    """How much a backend can do for jobs; a stock one needs nothing installed (docs/design.md, "Decisions")."""

    STOCK = "stock"
    PACK = "worker pack"
    ENGINE = "engine"


@dataclass
class Member:
    """A backend as this proxy sees it now."""

    row: Backend
    client: ComfyClient
    reader: OfferReader
    health: Health = Health.JOINING
    silent_since: float = field(default_factory=monotonic_s)
    error: str | None = None
    stats: dict[str, Any] = field(default_factory=dict)
    offer: Offer = field(default_factory=Offer)
    job: int | None = None
    """What it executes, or is about to."""
    collecting: set[int] = field(default_factory=set)
    """Jobs it has ended whose files are still on their way home."""
    lingering: int | None = None
    """A job whose user has been told its end and that it has not let go of."""
    warmth: Warmth = field(default_factory=Warmth)
    idle_since_s: float | None = field(default_factory=monotonic_s)
    """Since when it has had no job to execute, monotonic; None while it has one."""
    busy_s: float = 0.0
    """What it has spent on jobs that have ended, from the placement to the end at the backend."""
    busy_since_s: float | None = None
    seen_ms: int | None = None
    done: int = 0
    failed: int = 0
    """Jobs in a row that it lost; work goes to others first."""
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    """Set while the backend is down or removed: its runner gives the job back."""
    doubted: asyncio.Event = field(default_factory=asyncio.Event)
    """Set to have it probed at once."""
    evict: asyncio.Event = field(default_factory=asyncio.Event)
    """Set while its job has to go elsewhere, the deadline of a drain being over: its runner gives the job back, which
    counts as no attempt. What has been rendered is still fetched."""
    held: str | None = None
    """Why it gets no new job for a moment: its models are being unloaded, or its restart is due."""
    on_trial: bool = False
    """A trial job runs there."""
    untried: bool = False
    """It was down, and has to run a trial job before it gets others."""
    restart_wanted: asyncio.Event = field(default_factory=asyncio.Event)
    """Set to have whoever started its process end it and start it anew; that one clears it when the old one is gone."""
    managed: ManagedState | None = None
    """What its process is doing, where the server or an agent keeps it; None where somebody else does."""
    wanted_since_s: float | None = None
    """Since when jobs wait that could run here and that no other place has taken; monotonic. Wakes a sleeping one."""
    leftovers: Leftovers = field(init=False)
    worker: Known | None = None
    """The worker pack it has; None for a stock ComfyUI."""
    proven: str | None = None
    """The instance of its worker pack that has answered at the row's address."""
    shared: bool = False
    """Whether its worker pack sees the users' directories."""
    shelf: int = 0
    """Ended jobs whose files its worker pack keeps while others run; 0 for one whose next job takes their place."""
    hashes: Hashes = field(default_factory=Hashes)

    def __post_init__(self) -> None:
        self.leftovers = Leftovers(self.client, None if self.worker is None else WorkerClient(self.client))

    @property
    def key(self) -> int:
        """The row's id."""
        return self.row.key

    @property
    def device(self) -> str:
        """Its GPU as it calls it; empty before it has said."""
        return next((str(device.get("name") or "") for device in self._devices()), "")

    @property
    def vram_mb(self) -> int:
        """Memory of its largest GPU; 0 where that is not known."""
        totals = [device.get("vram_total") for device in self._devices()]
        return max((total >> 20 for total in totals if isinstance(total, int)), default=0)

    def _devices(self) -> list[dict[str, Any]]:
        found = self.stats.get("devices")
        return [device for device in found if isinstance(device, dict)] if isinstance(found, list) else []

    @property
    def info(self) -> ObjectInfo:
        """Its node definitions; none before it has told them."""
        return self.offer.info

    @property
    def provider(self) -> Provider:
        """What it offers, as the union and the matching of jobs see it."""
        return Provider(self.key, self.row.name, self.offer, self.reads_user_models)

    @property
    def reads_user_models(self) -> bool:
        """Whether a user's own models, such as `output/loras`, are where it looks for them."""
        return self.worker is not None

    @property
    def level(self) -> Level:
        """What it is: an engine with the worker pack counts as a worker."""
        if self.worker is not None:
            return Level.PACK
        return Level.ENGINE if self.row.source == "engine" else Level.STOCK

    @property
    def is_empty(self) -> bool:
        """Whether nothing of any job is there: it can be stopped."""
        return not self.busy and not self.leftovers and not self.on_trial

    @property
    def restarts_by_flag(self) -> bool:
        """Whether somebody here keeps its process and heeds `restart_wanted`."""
        return self.managed is not None

    @property
    def idle(self) -> bool:
        """Whether a job may be given to it now."""
        ready = self.health is Health.UP and self.row.mode is BackendMode.ACTIVE and bool(self.info)
        free = self.job is None and len(self.collecting) < self.may_collect
        return ready and free and not self.leftovers and self.held is None and not self.on_trial

    @property
    def may_collect(self) -> int:
        """Jobs whose files it may have on their way home; one that is told to take no other beside them has one."""
        return COLLECTING if self.worker is None else max(1, min(COLLECTING, self.shelf))

    @property
    def runs_beside(self) -> bool:
        """Whether it may have its next job while files of the one before come home."""
        return self.worker is None or self.shelf > 0

    @property
    def busy(self) -> bool:
        """Whether some job needs it: to be executed, or to fetch its files."""
        return self.job is not None or bool(self.collecting)

    def begin(self, seq: int) -> None:
        """It executes this job from now on."""
        self.evict.clear()  # that was for the one before
        self.job, self.busy_since_s, self.idle_since_s = seq, monotonic_s(), None

    def release(self, seq: int, *, collecting: bool) -> None:
        """It has ended this job; `collecting` while its files are still there."""
        if self.job == seq:
            now = monotonic_s()
            self.busy_s += now - (self.busy_since_s if self.busy_since_s is not None else now)
            self.job, self.busy_since_s, self.idle_since_s = None, None, now
        if collecting:
            self.collecting.add(seq)
        else:
            self.collecting.discard(seq)
