"""One agent from its settings to its end: holds its directory, keeps the instances, ends them with itself.

The directory is the agent's own: records and logs as in a server's, no database. Nothing listens but the instances.
"""

import asyncio
import os
import re
import secrets
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from backend_pool.managed.agent import Agent, Where
from backend_pool.managed.comfy_recipe import ComfyInstall, ComfyRecipe
from backend_pool.managed.crew import Crew
from backend_pool.managed.engine_recipe import EngineRecipe
from backend_pool.managed.gpus import chosen
from backend_pool.managed.instances import Instances
from backend_pool.managed.recipe import Recipe
from backend_pool.managed.supervisor import Limits
from backend_pool.workers.install import Wishes
from backend_pool.workers.tokens import PREFIX
from proxy.base.backend_url import clean_url
from proxy.base.errors import ConfigError
from proxy.base.logs import events
from proxy.base.settings import Settings
from proxy.base.tasks import Tasks
from proxy.data_dir import hold, prepare
from proxy.managed_backends import ENGINE_START_S, backend_install, managed_limits
from proxy.server import stop_signals
from user_sessions.run_dir import run_dir

log = events(__name__)

STOP_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Machine:
    """What an operator said of this machine and of the server."""

    server: str
    token: str
    name: str | None = None
    advertise: str | None = None
    listen: str = "127.0.0.1"
    shared_data: Path | None = None


def run_agent(settings: Settings, machine: Machine) -> None:
    """Serve until SIGTERM or Ctrl-C. Raises ConfigError."""
    if not machine.token.startswith(PREFIX):
        raise ConfigError(f"That is no worker's token: those begin with {PREFIX}. `worker-pack token` makes one.")
    server = clean_url(machine.server)
    prepare(settings.data_dir)
    with hold(settings.data_dir):
        where = Where(server, machine.token, _own_id(settings.data_dir), _name(machine.name), machine.advertise)
        recipe, names, limits = _plan(settings, machine, server)
        instances = Instances(recipe, run_dir(settings), settings.data_dir / "logs")
        asyncio.run(_serve(where, instances, names, limits))


def _plan(settings: Settings, machine: Machine, server: str) -> tuple[Recipe, list[str], Limits]:
    """What is kept here."""
    limits = managed_limits(settings)
    if settings.engines:
        names = [f"engine-{number}" for number in range(1, settings.engines + 1)]
        starts = replace(limits, start_timeout_s=min(limits.start_timeout_s, ENGINE_START_S))
        return EngineRecipe(settings, run_dir(settings)), names, starts
    gpus = chosen(settings.gpus or "auto")
    found = backend_install(settings)
    home = settings.data_dir.absolute() / "backends"
    wishes = Wishes(
        server=server,
        token=machine.token,
        name=_name(machine.name),
        advertise=None if machine.advertise is None else f"http://{machine.advertise}:{{port}}",
        shared_data=machine.shared_data,
    )
    pack = wishes if settings.backend_pack else None
    what = ComfyInstall(
        found.directory, found.python, tuple(settings.backend_args), _public(settings), pack, machine.listen
    )
    recipe = ComfyRecipe(home, what, gpus)
    log.info("instances", gpus={name: recipe.title(name) for name in recipe.names}, comfyui=found.version)
    return recipe, recipe.names, limits


def _public(settings: Settings) -> Path:
    """Models and custom nodes for all instances of this machine, beside the checkout's own."""
    public = settings.data_dir.absolute() / "public"
    for part in ("models", "custom_nodes"):
        (public / part).mkdir(parents=True, exist_ok=True)
    return public


async def _serve(where: Where, instances: Instances, names: list[str], limits: Limits) -> None:
    """Until a signal; then everything is ended."""
    tasks = Tasks()
    crew = Crew(instances, tasks)
    agent = Agent(where, crew)
    loop, this = asyncio.get_running_loop(), asyncio.current_task()
    assert this is not None
    asked = False

    def end() -> None:
        nonlocal asked
        if not asked:
            asked = True
            this.cancel()

    for number in stop_signals():
        loop.add_signal_handler(number, end)
    try:
        await crew.register(names, limits)
        sys.stdout.write(f"Ready: {where.name} keeps {len(names)} for {where.server}\n")
        sys.stdout.flush()
        await agent.run()
    except asyncio.CancelledError:
        if not asked:
            raise
        this.uncancel()
    finally:
        await tasks.stop()
        async with asyncio.timeout(STOP_TIMEOUT_S):
            await agent.stop()
        log.info("agent stopped")


def _name(given: str | None) -> str:
    """Letters that a name may have."""
    name = re.sub(r"[^0-9A-Za-z._-]+", "-", given or os.uname().nodename).strip("-._")[:40]
    if not name:
        raise ConfigError("Give this machine a name with letters in it: --name.")
    return name


def _own_id(data_dir: Path) -> str:
    """Made once: by it the server knows this agent again."""
    path = data_dir / "agent_id"
    try:
        known = path.read_text().strip()
    except FileNotFoundError:
        known = ""
    if not re.fullmatch(r"[0-9a-f]{32}", known):
        known = secrets.token_hex(16)
        partial = path.with_name("agent_id.part")
        partial.write_text(known)
        partial.replace(path)
    return known
