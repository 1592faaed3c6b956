"""The doctor's look at what sessions run: is it installed, does its Python have what it needs, what did not load."""

import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from typing import Any

from proxy.base.errors import ConfigError
from proxy.base.settings import Settings
from proxy.finding import Finding, bad, note
from user_sessions.comfyui.bootstrap import OLDEST
from user_sessions.comfyui.options import Options
from user_sessions.report import failed_nodes
from user_sessions.runtime_options import runtime_options
from user_sessions.runtimes import COMFYUI
from user_sessions.zygote_process import session_environment

PROBE_TIMEOUT_S = 60.0
PACKS_SHOWN = 20
NEEDED = ("torch", "aiohttp", "yaml", "PIL", "numpy")
PROBE = f"""
import importlib.util, json, sys
print(json.dumps([sys.version_info[:3], [name for name in {NEEDED!r} if importlib.util.find_spec(name) is None]]))
"""


def look_at_runtime(settings: Settings) -> Iterator[Finding]:
    """What can be said without starting a session."""
    try:
        options = runtime_options(settings, settings.runtime)
    except ConfigError as error:
        yield bad("sessions", error.message)
        return
    if settings.runtime != COMFYUI:
        return
    told = Options.from_text(options)
    try:
        version, missing = _ask(told)
    except (OSError, ValueError, TypeError, subprocess.SubprocessError) as error:
        yield bad("comfyui", f"{told.python} cannot be asked ({error}): check --comfyui-python")
        return
    python = f"Python {'.'.join(map(str, version))}"
    if version[:2] < OLDEST:
        yield bad("comfyui", f"{told.python} is {python}: sessions need 3.11 or newer")
    elif missing:
        yield bad("comfyui", f"{told.python} lacks {', '.join(missing)}: install ComfyUI's requirements there")
    else:
        yield Finding("comfyui", f"{told.version} in {told.directory}, {python} ({told.python})")


def look_at_host(health: Mapping[str, Any]) -> Iterator[Finding]:
    """What a running session host says of what its sessions start from."""
    zygote = health.get("zygote") or {}
    if zygote.get("unforkable"):
        yield note("sessions", f"not forked, so slow to start and large: {zygote['unforkable']}")
    if zygote.get("error") and not zygote.get("warm"):
        yield bad("sessions", f"cannot be started: {zygote['error']}")
    failed = failed_nodes(health.get("failed_nodes"))
    for node in failed[:PACKS_SHOWN]:
        yield note("custom nodes", f"{node.pack} did not load: {node.error}")
    if len(failed) > PACKS_SHOWN:
        yield note("custom nodes", f"{len(failed) - PACKS_SHOWN} more did not load, see the administrator's page")


def _ask(told: Options) -> tuple[tuple[int, ...], list[str]]:
    environment = session_environment(os.environ, foreign=True)
    command = [str(told.python), "-c", PROBE]
    done = subprocess.run(
        command, capture_output=True, check=True, timeout=PROBE_TIMEOUT_S, env=environment, cwd=told.directory
    )
    version, missing = json.loads(done.stdout)
    return tuple(version), list(missing)
