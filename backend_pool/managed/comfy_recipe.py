"""Real ComfyUIs as managed instances, one per GPU: directories of its own, the checkout untouched, shared models seen.

Everything it writes goes below `backends/<name>` of the data directory. The checkout's own models and custom nodes stay
its own; the shared ones are added, and the worker pack from a directory that no other ComfyUI reads.
"""

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from backend_pool.managed.gpus import Gpu
from backend_pool.managed.recipe import Launch
from backend_pool.workers.install import FOLDER, Wishes, comfyui_version, install, installed, uninstall
from proxy.base.errors import ConfigError
from proxy.base.listening import free_port, listens
from proxy.base.logs import events
from proxy.base.processes import Daemon, followers

log = events(__name__)

ENTER = 'cd "$1" && shift && exec "$@"'
DIRECTORIES = ("input", "output", "temp", "user", "custom_nodes")
KINDS = (
    "checkpoints", "loras", "vae", "text_encoders", "clip", "diffusion_models", "unet", "clip_vision", "style_models",
    "embeddings", "diffusers", "vae_approx", "controlnet", "t2i_adapter", "gligen", "upscale_models",
    "latent_upscale_models", "hypernetworks", "photomaker", "classifiers", "model_patches", "audio_encoders",
)  # fmt: skip
"""Folders of models that a ComfyUI knows by itself; others are seen if they are there when it starts."""
SAME = {"clip": "text_encoders", "unet": "diffusion_models", "t2i_adapter": "controlnet"}
"""Older names of folders, and what they belong to."""
OWNED = (
    "--base-directory", "--input-directory", "--output-directory", "--temp-directory", "--user-directory",
    "--database-url", "--listen", "--port", "--auto-launch", "--windows-standalone-build", "--tls-keyfile",
    "--tls-certfile", "--enable-cors-header", "--quick-test-for-ci", "--cuda-device",
)  # fmt: skip
"""Arguments that are ours to give."""
OF_OUR_PYTHON = {"VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "PYTHONWARNINGS", "PYTHONEXECUTABLE"}


@dataclass(frozen=True)
class ComfyInstall:
    """What runs: a checkout and its Python, both absolute; `shared` is the server's `public` directory, if any."""

    directory: Path
    python: Path
    arguments: tuple[str, ...] = ()
    shared: Path | None = None
    pack: Wishes | None = None
    """How the worker pack is set up; None: stock ones."""
    listen: str = "127.0.0.1"


class ComfyRecipe:
    """ComfyUIs of one directory, by the names of their GPUs."""

    kind = "gpu"

    def __init__(self, home: Path, what: ComfyInstall, gpus: Iterable[Gpu]) -> None:
        check_arguments(what.arguments)
        self._home = home
        self._what = with_known_pack(what)
        self._gpus = {gpu.name: gpu for gpu in gpus}

    @property
    def names(self) -> list[str]:
        """One per GPU, in their order."""
        return list(self._gpus)

    def title(self, name: str) -> str:
        """Its GPU for people."""
        gpu = self._gpus[name]
        return gpu.title or gpu.id

    def prepare(self, name: str) -> Launch:
        """Directories, the port it had if that is free, the worker pack, and where its models are."""
        base = self.base(name)
        base.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        base.mkdir(mode=0o700, exist_ok=True)
        for part in DIRECTORIES:
            (base / part).mkdir(exist_ok=True)
        port = self.reserve(name)
        self._install_pack(base)
        _write(base / "paths.yaml", json.dumps(self._paths(base), indent=1))  # JSON is YAML
        _write(base / "launched", self._print(name, port))
        return Launch(self._command(name, port), self._environment(name))

    def reserve(self, name: str) -> int:
        """Its port, the same as ever unless somebody else has it by now."""
        base = self.base(name)
        base.mkdir(mode=0o700, parents=True, exist_ok=True)
        others = {port for other in self._gpus if other != name and (port := self.port(other)) is not None}
        port = free_port(self.port(name), others)
        _write(base / "port", str(port))
        return port

    def port(self, name: str) -> int | None:
        """The port it was given last."""
        try:
            return int((self.base(name) / "port").read_text())
        except (OSError, ValueError):
            return None

    def marker(self, name: str) -> tuple[str, ...]:
        """Its own user directory."""
        return "--user-directory", str(self.base(name) / "user")

    def address(self, name: str, daemon: Daemon) -> str | None:
        """Its loopback URL, once it or what it has started listens there."""
        port = self.port(name)
        if port is None or not listens(port, {daemon.pid, *followers(daemon)}):
            return None
        return self.planned(name)

    def traceable(self, name: str) -> bool:
        """Its port is noted before it starts."""
        return self.port(name) is not None

    def planned(self, name: str) -> str | None:
        """By the port it was given."""
        port = self.port(name)
        return None if port is None else f"http://127.0.0.1:{port}"

    def stale(self, name: str) -> bool:
        """Whether it was started in another way than it would be now."""
        port = self.port(name)
        try:
            return port is None or (self.base(name) / "launched").read_text() != self._print(name, port)
        except OSError:
            return True

    def worker(self, name: str) -> str | None:
        """The id by which its worker pack registers; None for a stock one."""
        found = installed(self.base(name) / "custom_nodes") if self._what.pack is not None else None
        port = self.port(name)
        return None if found is None or found.config is None or port is None else f"{found.config.worker_id}-{port}"

    def forget(self, name: str) -> None:
        """What it wrote stays: it may hold an operator's own files, and it starts from there again."""

    def base(self, name: str) -> Path:
        """Its directory."""
        return self._home / name

    def _command(self, name: str, port: int) -> list[str]:
        base, what = self.base(name), self._what
        command = ["/bin/sh", "-c", ENTER, "sh", str(what.directory), str(what.python), str(what.directory / "main.py")]
        command += ["--listen", what.listen, "--port", str(port), "--disable-auto-launch"]
        for part in ("input", "output", "temp", "user"):
            command += [f"--{part}-directory", str(base / part)]
        command += ["--database-url", f"sqlite:///{base / 'user' / 'comfyui.db'}"]
        command += ["--extra-model-paths-config", str(base / "paths.yaml")]
        return [*command, *self._gpus[name].arguments, *what.arguments]

    def _environment(self, name: str) -> dict[str, str]:
        """Ours without what leads to our Python's libraries, and without our settings: passwords are among them."""
        kept = {key: value for key, value in os.environ.items() if not key.upper().startswith("COMFY_CLUSTER_")}
        return {key: value for key, value in kept.items() if key not in OF_OUR_PYTHON} | self._gpus[name].env

    def _install_pack(self, base: Path) -> None:
        if self._what.pack is not None:
            install(base / "custom_nodes", self._what.pack)
        else:
            uninstall(base / "custom_nodes")

    def _paths(self, base: Path) -> dict[str, dict[str, str]]:
        paths = {"own": {"custom_nodes": str(base / "custom_nodes")}}
        if self._what.shared is not None:
            models = self._what.shared / "models"
            there = {path.name for path in models.iterdir() if path.is_dir()} if models.is_dir() else set()
            shared = {"custom_nodes": str(self._what.shared / "custom_nodes")}
            for kind in sorted({*KINDS, *there} - {"custom_nodes", "configs"}):
                known = SAME.get(kind, kind)
                shared[known] = "\n".join(filter(None, (shared.get(known), str(models / kind))))
            paths["shared"] = shared
        return paths

    def _print(self, name: str, port: int) -> str:
        pack = self._what.pack
        told = [self._command(name, port), self._gpus[name].env, repr(pack and replace(pack, token=None))]
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()


def check_arguments(arguments: Iterable[str]) -> None:
    """Raise ConfigError when one of them is not the operator's to give."""
    for argument in arguments:
        if argument.partition("=")[0] in OWNED:
            raise ConfigError(f"`{argument}` cannot be given in `backend_args`: each instance has its own.")


def with_known_pack(what: ComfyInstall) -> ComfyInstall:
    """Without the worker pack where it does not know the ComfyUI, which is logged. Raises ConfigError where one is."""
    places = [what.directory / "custom_nodes", *([what.shared / "custom_nodes"] if what.shared is not None else [])]
    if any((place / FOLDER).exists() for place in places):
        raise ConfigError(
            f"The ComfyUI in {what.directory} has a worker pack that registers it elsewhere. Remove it (worker-pack "
            "uninstall): managed instances get their own."
        )
    if what.pack is None:
        return what
    try:
        comfyui_version(what.directory)
    except ConfigError as error:
        log.warning("managed ComfyUIs are stock ones", reason=error.message)
        return replace(what, pack=None)
    return what


def _write(path: Path, text: str) -> None:
    partial = path.with_name(f"{path.name}.part")
    with os.fdopen(os.open(partial, os.O_CREAT | os.O_WRONLY | os.O_TRUNC | os.O_NOFOLLOW, 0o600), "w") as file:
        file.write(text)
    partial.replace(path)
