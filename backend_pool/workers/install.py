"""Puts the worker pack into a ComfyUI: checks that it is one the pack knows, copies the code, writes its settings.

Touches one folder, `custom_nodes/comfyui-cluster-worker`, and nothing else of the ComfyUI. Blocking.
"""

import os
import re
import shutil
import uuid
from dataclasses import dataclass, replace
from pathlib import Path

from backend_pool import worker_pack
from backend_pool.worker_pack.comfy_hooks import version_problem
from backend_pool.worker_pack.config import FILE, PORT, Config, ConfigProblem, load, save
from backend_pool.worker_pack.wire import CHALLENGE, PACK_VERSION
from backend_pool.workers.tokens import PREFIX
from proxy.base.backend_url import clean_url
from proxy.base.errors import ConfigError

FOLDER = "comfyui-cluster-worker"
_VERSION = re.compile(r"""^__version__\s*=\s*["']([^"']+)["']""", re.MULTILINE)
_PACK = re.compile(r"""^PACK_VERSION\s*=\s*["']([^"']+)["']""", re.MULTILINE)


@dataclass(frozen=True)
class Wishes:
    """What an operator gave; None leaves what an earlier installation says."""

    server: str | None = None
    token: str | None = None
    name: str | None = None
    advertise: str | None = None
    shared_data: Path | None = None
    open: bool | None = None


@dataclass(frozen=True)
class Installed:
    """What is there: the pack's version, and its settings or why they are of no use."""

    version: str
    config: Config | None
    problem: str = ""


def comfyui_version(comfyui: Path) -> str:
    """The version of a ComfyUI. Raises ConfigError for what is none, and for one that the pack does not know."""
    if not (comfyui / "main.py").is_file() or not (comfyui / "nodes.py").is_file():
        raise ConfigError(f"{comfyui} is no ComfyUI: it has no main.py. Give the directory of its checkout.")
    try:
        found = _VERSION.search((comfyui / "comfyui_version.py").read_text())
    except OSError:
        found = None
    if found is None:
        raise ConfigError(f"{comfyui} does not say its version (comfyui_version.py): it is too old, or no ComfyUI.")
    problem = version_problem(found[1])
    if problem is not None:
        raise ConfigError(f"{problem}. Use it as a stock backend: backend add URL.")
    return found[1]


def install(custom_nodes: Path, wishes: Wishes) -> Config:
    """Copy the code and write the settings, or bring both up to date. Raises ConfigError."""
    if not custom_nodes.is_dir():
        raise ConfigError(f"There is no directory {custom_nodes}. Check --comfyui or --custom-nodes.")
    config = _config(custom_nodes / FOLDER, wishes)
    try:
        _put(custom_nodes, config)
    except OSError as error:
        raise ConfigError(f"The pack cannot be put into {custom_nodes}: {error.strerror}.") from error
    return config


def _put(custom_nodes: Path, config: Config) -> None:
    target = custom_nodes / FOLDER
    fresh = custom_nodes / f".{FOLDER}.new"
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(mode=0o755)
    for source in sorted(Path(worker_pack.__file__).parent.glob("*.py")):
        shutil.copyfile(source, fresh / source.name)
    save(fresh / FILE, config)
    shutil.rmtree(target, ignore_errors=True)
    fresh.replace(target)


def uninstall(custom_nodes: Path) -> bool:
    """Remove it; False when it was not there. Raises ConfigError."""
    target = custom_nodes / FOLDER
    if not target.is_dir():
        return False
    try:
        shutil.rmtree(target)
    except OSError as error:
        raise ConfigError(f"{target} cannot be removed: {error.strerror}.") from error
    return True


def installed(custom_nodes: Path) -> Installed | None:
    """What is there, None when there is nothing."""
    target = custom_nodes / FOLDER
    if not target.is_dir():
        return None
    try:
        found = _PACK.search((target / "wire.py").read_text())
        version = found[1] if found is not None else "unknown"
    except OSError:
        version = "unknown"
    try:
        return Installed(version, load(target / FILE))
    except ConfigProblem as problem:
        return Installed(version, None, str(problem))


def is_current(found: Installed) -> bool:
    """Whether the code there is this version's."""
    return found.version == PACK_VERSION


def _config(target: Path, wishes: Wishes) -> Config:
    known = installed(target.parent)
    earlier = known.config if known is not None else None
    if earlier is None and (wishes.server is None or wishes.token is None):
        raise ConfigError("Give --server and --token: where to register, and the token of `worker-pack token`.")
    base = earlier or Config(server="", token="", worker_id=uuid.uuid4().hex, name=os.uname().nodename)
    changes: dict[str, object] = {}
    if wishes.server is not None:
        changes["server"] = clean_url(wishes.server)
    if wishes.advertise is not None:
        changes["advertise"] = _advertised(wishes.advertise) if wishes.advertise else None
    if wishes.shared_data is not None:
        changes["shared_data"] = str(_shared(wishes.shared_data))
    if wishes.token is not None and not wishes.token.startswith(PREFIX):
        raise ConfigError(f"That is no worker's token: those begin with {PREFIX}. `worker-pack token` makes one.")
    for key in ("token", "name", "open"):
        if getattr(wishes, key) is not None:
            changes[key] = getattr(wishes, key)
    return replace(base, **changes)  # type: ignore[arg-type]


def _advertised(text: str) -> str:
    """A URL in which `{port}` may stand for the port of each process."""
    if PORT not in text:
        return clean_url(text)
    whole = text if "://" in text else f"http://{text}"
    clean_url(whole.replace(PORT, "1"))
    return whole.strip().rstrip("/")


def _shared(folder: Path) -> Path:
    """The users' directory as this machine sees it. The challenge is made by the proxy, so it may not be there yet."""
    whole = folder.absolute()
    if not whole.is_dir():
        raise ConfigError(f"There is no directory {whole}. Give the server's `users` directory as mounted here.")
    if not os.access(whole, os.W_OK):
        raise ConfigError(f"{whole} cannot be written to by this account (it has {CHALLENGE} of the server).")
    return whole
