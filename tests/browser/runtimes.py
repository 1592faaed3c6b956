"""The session runtimes that browser tests run over; each starts the whole server with it."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType

import pytest

from tests.cluster import Cluster, start_cluster
from tests.real_comfyui import configured

FRONTEND = Path(str(files("comfyui_frontend_package") / "static"))
"""What the light runtime serves; tests/webui.py is written for it."""


@dataclass(frozen=True)
class Runtime:
    """Further arguments and settings of `comfy-cluster up`."""

    name: str
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    def start(self, tmp_path: Path, *args: str, env: Mapping[str, str] | None = None) -> Cluster:
        """A server whose sessions run it, with embedded engines as backends."""
        return start_cluster(tmp_path, *self.args, *args, env={**self.env, **(env or {})})


def light() -> Runtime:
    return Runtime("light")


def comfyui(*comfyui_args: str) -> Runtime:
    """A real ComfyUI, with the frontend that it brings unless the arguments name another."""
    args = ("--comfyui", os.environ.get("COMFYUI_DIR", ""), "--comfyui-python", os.environ.get("COMFYUI_PYTHON", ""))
    quoted = ", ".join(f'"{each}"' for each in comfyui_args)
    return Runtime("comfyui", args, {"COMFY_CLUSTER_COMFYUI_ARGS": f"[{quoted}]"} if comfyui_args else {})


def _real() -> Runtime:
    return comfyui("--front-end-root", str(FRONTEND))


# Without a real ComfyUI its half is not collected: tests/contract/test_servers.py says so once for the whole run.
REAL = [pytest.mark.comfyui, pytest.mark.slow]
RUNTIMES = [
    pytest.param(light, id="light"),
    *([pytest.param(_real, id="comfyui", marks=REAL)] if configured() else []),
]
