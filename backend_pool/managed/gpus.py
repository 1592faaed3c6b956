"""The GPUs of this machine: found by the tools of their makers, named by id, shown to one process each."""

import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field

from proxy.base.errors import ConfigError

TIMEOUT_S = 20.0
NVIDIA = ("nvidia-smi", "-L")
ROCM = ("rocm-smi", "--showid")
_NVIDIA_LINE = re.compile(r"^GPU (\d+): (.+?)(?: \(UUID: .*\))?$", re.MULTILINE)
_ROCM_LINE = re.compile(r"^GPU\[(\d+)\]\s*:\s*(?:Device Name|GPU ID):\s*(.+?)\s*$", re.MULTILINE)
Ask = Callable[[tuple[str, ...]], str | None]


@dataclass(frozen=True)
class Gpu:
    """`id` as its maker's tool shows it, `env` makes it the only one a process sees."""

    id: str
    title: str = ""
    env: dict[str, str] = field(default_factory=dict)
    arguments: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Of its instance: `gpu-0`."""
        return f"gpu-{re.sub(r'[^0-9A-Za-z-]+', '-', self.id)}"


def chosen(wanted: str | None, ask: Ask | None = None) -> list[Gpu]:
    """The GPUs of the setting `gpus`. Raises ConfigError when `auto` finds none, or names come out the same."""
    asked = ask or _ask
    if not wanted:
        return []
    if wanted == "auto":
        found = present(asked)
        if not found:
            raise ConfigError(
                "No GPU was found: neither nvidia-smi nor rocm-smi shows one. Install the driver, name them "
                "(--gpus 0,1), or leave --gpus out."
            )
        return found
    rocm = asked(NVIDIA) is None and asked(ROCM) is not None
    gpus = [_gpu(name.strip(), "", rocm=rocm) for name in wanted.split(",")]
    if len({gpu.name for gpu in gpus}) < len(gpus):
        raise ConfigError(f"Two of the GPUs {wanted!r} would have the same name. Name them by their numbers.")
    return gpus


def present(ask: Ask | None = None) -> list[Gpu]:
    """All that a tool shows; NVIDIA's first."""
    asked = ask or _ask
    told = asked(NVIDIA)
    if told:
        found = [_gpu(id_, title, rocm=False) for id_, title in _NVIDIA_LINE.findall(told)]
        if found:
            return found
    shown = dict(_ROCM_LINE.findall(asked(ROCM) or ""))
    return [_gpu(id_, title, rocm=True) for id_, title in shown.items()]


def _gpu(id_: str, title: str, *, rocm: bool) -> Gpu:
    if id_ == "cpu":
        return Gpu(id_, "no GPU", {"CUDA_VISIBLE_DEVICES": "", "HIP_VISIBLE_DEVICES": ""}, ("--cpu",))
    if rocm:
        return Gpu(id_, title, {"HIP_VISIBLE_DEVICES": id_})
    # The tool counts in the order of the bus; without saying so CUDA counts the fastest first.
    return Gpu(id_, title, {"CUDA_VISIBLE_DEVICES": id_, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"})


def _ask(command: tuple[str, ...]) -> str | None:
    """What a tool prints, None where there is no such tool or it fails. Blocking."""
    try:
        done = subprocess.run(command, capture_output=True, check=True, timeout=TIMEOUT_S, text=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout
