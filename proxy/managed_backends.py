"""The backends whose processes this server keeps: embedded engines, and one ComfyUI per GPU; made from the settings.

Owns their keepers, from the registration before the server is ready to their end with it.
"""

import asyncio
from dataclasses import replace
from pathlib import Path

from backend_pool.backends.pool import Pool
from backend_pool.backends.registry import Registry
from backend_pool.managed.comfy_recipe import ComfyInstall, ComfyRecipe
from backend_pool.managed.engine_recipe import EngineRecipe
from backend_pool.managed.gpus import chosen
from backend_pool.managed.instances import Instances
from backend_pool.managed.keeper import Keeper
from backend_pool.managed.own_token import own_token
from backend_pool.managed.rows import ManagedRows
from backend_pool.managed.stand_in import StandIn
from backend_pool.managed.supervisor import Limits
from backend_pool.offers.store import OfferStore
from backend_pool.workers.install import Wishes
from proxy.base.database import Database
from proxy.base.errors import ConfigError
from proxy.base.logs import events
from proxy.base.repeated import Repeated
from proxy.base.settings import Settings
from proxy.base.tasks import Tasks
from user_sessions.comfyui.install import Install, find_install

log = events(__name__)
often = Repeated(log)

ENGINE, MANAGED = "engine", "managed"
ENGINE_START_S = 30.0
"""An engine answers within a second: no more patience than that, whatever a ComfyUI is given."""


class ManagedBackends:
    """Both kinds. `register`, then the loops of `watch`; `stop` at the end."""

    def __init__(
        self, settings: Settings, db: Database, run: Path, *, registry: Registry, pool: Pool, tasks: Tasks
    ) -> None:
        self._settings = settings
        self._db = db
        self._run = run
        self._registry = registry
        self._pool = pool
        self._tasks = tasks
        self._logs = settings.data_dir / "logs"
        self.engines = self._keeper(ENGINE, Instances(EngineRecipe(settings, run), run, self._logs))
        self.gpus: Keeper | None = None
        self._stand_in = StandIn(self.engines, registry, pool)

    async def register(self, own_url: str) -> None:
        """Start or find what the settings ask for; engines answer on return. Raises ClusterError."""
        await self._register_gpus(own_url)
        count = self._settings.engines
        if count is None:
            count = int(all(row.source == ENGINE for row in await self._registry.listing()))
            await self._stand_in.revive()
            if count:
                log.info(
                    "no backend is known: an embedded engine draws until one is up", add="comfy-cluster backend add URL"
                )
        names = [f"{ENGINE}-{number}" for number in range(1, count + 1)]
        await self.engines.register(names, engine_limits(self._settings))
        await self.engines.started()

    def watch(self) -> None:
        """Look after them from now on."""
        self._tasks.start("engines", self.engines.watch(), vital=True)
        if self._settings.engines is None and self.engines.names:
            self._tasks.start("stand-in", self._watch_stand_in())
        if self.gpus is not None:
            self._tasks.start("managed backends", self.gpus.watch(), vital=True)

    async def stop(self) -> None:
        """End all of them."""
        keepers = [self.engines, *([self.gpus] if self.gpus is not None else [])]
        await asyncio.gather(*(keeper.stop() for keeper in keepers))

    async def _watch_stand_in(self) -> None:
        while self.engines.names:
            try:
                await self._stand_in.look()
            except Exception as error:
                often.error("the stand-in engine could not be looked after", exc_info=error)
            await asyncio.sleep(self._settings.job_poll_s)

    async def _register_gpus(self, own_url: str) -> None:
        settings = self._settings
        gpus = await asyncio.to_thread(chosen, settings.gpus)
        home = settings.data_dir.absolute() / "backends"
        if not gpus:
            await ManagedRows(self._db, MANAGED).keep_only([])
            if not list(self._run.glob("gpu-*.json")):
                return
            recipe = ComfyRecipe(home, ComfyInstall(Path("/nonexistent"), Path("/nonexistent")), [])
            await Instances(recipe, self._run, self._logs).forget_all()  # of settings that were changed since
            return
        found = backend_install(settings)
        pack: Wishes | None = None
        token_id: int | None = None
        if settings.backend_pack:
            token, token_id = await asyncio.to_thread(own_token, self._db, home / "token")
            pack = own_wishes(settings, own_url, token)
        what = comfy_install(settings, found, pack)
        recipe = await asyncio.to_thread(ComfyRecipe, home, what, gpus)
        self.gpus = self._keeper(MANAGED, Instances(recipe, self._run, self._logs), token_id)
        await self.gpus.register(recipe.names, managed_limits(settings))
        titles = {name: recipe.title(name) for name in recipe.names}
        log.info("managed backends", instances=titles, comfyui=found.version, python=found.python)

    def _keeper(self, source: str, instances: Instances, token_id: int | None = None) -> Keeper:
        rows, offers = ManagedRows(self._db, source), OfferStore(self._settings.data_dir)
        poll_s = self._settings.job_poll_s
        return Keeper(instances, rows, self._pool, offers, self._tasks, poll_s=poll_s, token_id=token_id)


def managed_limits(settings: Settings) -> Limits:
    """Of ComfyUIs."""
    return Limits(
        settings.managed_min,
        settings.managed_max,
        settings.managed_idle_s,
        settings.managed_cooldown_s,
        settings.managed_start_timeout_s,
    )


def engine_limits(settings: Settings) -> Limits:
    """Of embedded engines: awake all of them, unless the settings say how many."""
    limits = replace(managed_limits(settings), start_timeout_s=min(settings.managed_start_timeout_s, ENGINE_START_S))
    if settings.engines_min is None:
        return replace(limits, minimum=0, maximum=None, idle_s=0.0)
    return replace(limits, minimum=settings.engines_min)


def backend_install(settings: Settings) -> Install:
    """The ComfyUI that managed backends run, and its Python. Raises ConfigError saying what to set."""
    directory = settings.backend_comfyui or settings.comfyui
    if directory is None:
        raise ConfigError("Which ComfyUI shall run on the GPUs? Name its directory: --comfyui, or `backend_comfyui`.")
    same = settings.backend_comfyui in (None, settings.comfyui)
    return find_install(directory, settings.backend_python or (settings.comfyui_python if same else None))


def comfy_install(settings: Settings, found: Install, pack: Wishes | None) -> ComfyInstall:
    """What is run, with the shared directories of this server."""
    public = settings.data_dir.absolute() / "public"
    return ComfyInstall(found.directory, found.python, tuple(settings.backend_args), public, pack)


def own_wishes(settings: Settings, own_url: str, token: str) -> Wishes:
    """How the worker pack is set up: users' directories are on the same disk. Makes the parent of those."""
    users = settings.data_dir.absolute() / "users"
    users.mkdir(mode=0o700, parents=True, exist_ok=True)
    return Wishes(server=own_url, token=token, shared_data=users, open=False)
