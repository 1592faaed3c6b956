"""The doctor's look at what sessions run: is it installed, does its Python have what it needs?"""

import json
import os
import subprocess
from collections.abc import Iterator

from proxy.base.errors import ConfigError
from proxy.base.settings import Settings
from proxy.doctor.finding import Finding, bad
from proxy.doctor.host import SeenHost
from user_sessions.comfyui.bootstrap import OLDEST
from user_sessions.comfyui.options import Options
from user_sessions.runtime_options import runtime_options
from user_sessions.runtimes import COMFYUI
from user_sessions.zygote_process import session_environment

PROBE_TIMEOUT_S = 60.0
NEEDED = ("torch", "aiohttp", "yaml", "PIL", "numpy", "tqdm", "psutil", "einops", "safetensors")
PROBE = f"""
import importlib.util, json, sys
print(json.dumps([sys.version_info[:3], [name for name in {NEEDED!r} if importlib.util.find_spec(name) is None]]))
"""


def look_at_runtime(settings: Settings, host: SeenHost | None = None) -> Iterator[Finding]:
    """What can be said without starting a session: of what `host` runs, else of what the settings name."""
    try:
        runtime = host.runtime if host else settings.runtime
        options = host.options if host else runtime_options(settings, runtime)
    except ConfigError as error:
        yield bad("sessions", error.message)
        return
    if runtime != COMFYUI:
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


def _ask(told: Options) -> tuple[tuple[int, ...], list[str]]:
    environment = session_environment(os.environ, foreign=True)
    command = [str(told.python), "-c", PROBE]
    done = subprocess.run(
        command, capture_output=True, check=True, timeout=PROBE_TIMEOUT_S, env=environment, cwd=told.directory
    )
    version, missing = json.loads(done.stdout)
    return tuple(version), list(missing)
