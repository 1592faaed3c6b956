"""The pack's settings: one JSON file beside its code, readable by ComfyUI's account alone. It holds the token."""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

FILE = "config.json"
PORT = "{port}"
"""In `advertise`: the port of each process that this installation runs as."""


class ConfigProblem(Exception):
    """The file is missing or not usable; the message says what to do."""


@dataclass(frozen=True)
class Config:
    """What an operator chose at the installation."""

    server: str
    token: str
    worker_id: str
    name: str
    advertise: str | None = None
    """URL at which the proxy reaches this ComfyUI; None: the address its heartbeats come from."""
    shared_data: str | None = None
    """The proxy's `users` directory as this machine sees it."""
    open: bool = False
    """Whether ComfyUI's own pages and routes stay open to everybody while no job of the cluster runs."""
    heartbeat_s: float = 3.0
    store_mb: int = 8192
    """Room for input files that came by HTTP; the longest unused ones go."""


def load(path: Path) -> Config:
    """Read it. Raises ConfigProblem."""
    try:
        found = json.loads(path.read_text())
        known = {key: value for key, value in found.items() if key in Config.__dataclass_fields__}
        config = Config(**known)
    except OSError as error:
        raise ConfigProblem(
            f"{path} cannot be read ({error.strerror}). Run `comfy-cluster worker-pack install`."
        ) from error
    except (ValueError, AttributeError, TypeError) as error:
        raise ConfigProblem(f"{path} is not usable. Run `comfy-cluster worker-pack install` again.") from error
    for field in ("server", "token", "worker_id", "name"):
        if not isinstance(getattr(config, field), str) or not getattr(config, field):
            raise ConfigProblem(f"{path} has no {field}. Run `comfy-cluster worker-pack install` again.")
    return config


def save(path: Path, config: Config) -> None:
    """Write it, mode 0600 from its first byte on, in place of an older one."""
    partial = path.with_name(f"{path.name}.part")
    partial.unlink(missing_ok=True)
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
        json.dump(asdict(config), out, indent=2)
    partial.replace(path)
