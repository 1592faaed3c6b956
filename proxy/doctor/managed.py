"""The doctor's look at managed backends: are there the GPUs and the ComfyUI that the settings ask for, what crashed?"""

from collections.abc import Iterator
from pathlib import Path

from backend_pool.managed.comfy_recipe import check_arguments
from backend_pool.managed.gpus import chosen, present
from backend_pool.workers.install import FOLDER, comfyui_version
from proxy.base.errors import ConfigError
from proxy.base.log_file import tail
from proxy.base.processes import recorded
from proxy.base.settings import Settings
from proxy.doctor.finding import Finding, bad, note
from proxy.managed_backends import backend_install

WHAT = "managed backends"


def managed(settings: Settings) -> Iterator[Finding]:
    """What can be said without starting one."""
    if settings.gpus is None:
        found = present()
        if found:
            yield note(WHAT, f"none, but this machine has {len(found)} GPUs: --gpus auto starts a ComfyUI on each")
        return
    try:
        gpus = chosen(settings.gpus)
        install = backend_install(settings)
        check_arguments(settings.backend_args)
    except ConfigError as error:
        yield bad(WHAT, error.message)
        return
    yield Finding(WHAT, f"ComfyUI {install.version} in {install.directory} ({install.python})")
    yield from _pack(settings, install.directory)
    shown = {gpu.id for gpu in present()}
    for gpu in gpus:
        if gpu.id != "cpu" and shown and gpu.id.isdecimal() and gpu.id not in shown:
            yield bad(WHAT, f"there is no GPU {gpu.id}: nvidia-smi or rocm-smi shows {', '.join(sorted(shown))}")
        else:
            yield _instance(settings, gpu.name, gpu.title or gpu.id)


def _pack(settings: Settings, directory: Path) -> Iterator[Finding]:
    places = (directory / "custom_nodes", settings.data_dir / "public" / "custom_nodes")
    if any((place / FOLDER).exists() for place in places):
        yield bad(WHAT, f"{directory} has a worker pack of its own: worker-pack uninstall --comfyui {directory}")
    elif settings.backend_pack:
        try:
            comfyui_version(directory)
        except ConfigError as error:
            yield note(WHAT, f"they are stock backends: {error.message}")


def _instance(settings: Settings, name: str, title: str) -> Finding:
    """Whether its process runs, and what it wrote last where it does not."""
    daemon = recorded((settings.run_dir or settings.data_dir / "run") / f"{name}.json")
    if daemon is not None:
        return Finding(WHAT, f"{name} ({title}) runs as process {daemon.pid}")
    log = settings.data_dir / "logs" / f"{name}.log"
    words = tail(log).splitlines()[-1:]
    return Finding(WHAT, f"{name} ({title}) does not run" + (f"; {log} ends with: {words[0]}" if words else ""))
