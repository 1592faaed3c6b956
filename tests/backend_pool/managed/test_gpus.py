"""GPUs by what their makers' tools print, and how each process is shown its own."""

import pytest
from pydantic import ValidationError

from backend_pool.managed.gpus import NVIDIA, ROCM, chosen, present
from proxy.base.errors import ConfigError
from proxy.base.settings import Settings

SMI = """GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-5d1f0b4e-9f7d-8d5e-7b5f-0f3f6e1c2a11)
GPU 1: NVIDIA GeForce RTX 4090 (UUID: GPU-aa)
  MIG 1g.10gb     Device  0: (UUID: MIG-bb)
"""
ROCM_SMI = """
============================ ROCm System Management Interface ============================
GPU[0]\t\t: Device Name: \t\tAMD Instinct MI300X
GPU[0]\t\t: Device ID: \t\t0x74a1
GPU[1]\t\t: Device Name: \t\tAMD Instinct MI300X
==================================================================================
"""


def asks(nvidia: str | None = None, rocm: str | None = None) -> dict[tuple[str, ...], str | None]:
    return {NVIDIA: nvidia, ROCM: rocm}


def test_all_that_nvidia_shows() -> None:
    found = chosen("auto", asks(nvidia=SMI).get)
    assert [(gpu.name, gpu.title) for gpu in found] == [
        ("gpu-0", "NVIDIA H100 80GB HBM3"),
        ("gpu-1", "NVIDIA GeForce RTX 4090"),
    ]
    assert found[1].env == {"CUDA_VISIBLE_DEVICES": "1", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}


def test_all_that_rocm_shows() -> None:
    found = chosen("auto", asks(rocm=ROCM_SMI).get)
    assert [(gpu.name, gpu.title, gpu.env) for gpu in found] == [
        ("gpu-0", "AMD Instinct MI300X", {"HIP_VISIBLE_DEVICES": "0"}),
        ("gpu-1", "AMD Instinct MI300X", {"HIP_VISIBLE_DEVICES": "1"}),
    ]


@pytest.mark.parametrize(
    ("wanted", "names"),
    [(None, []), ("1", ["gpu-1"]), ("0,3", ["gpu-0", "gpu-3"]), ("cpu", ["gpu-cpu"]), ("MIG-a/3/0", ["gpu-MIG-a-3-0"])],
)
def test_those_that_were_named(wanted: str | None, names: list[str]) -> None:
    """Nothing is asked of a tool that is not there: the operator knows."""
    found = chosen(wanted, asks().get)
    assert [gpu.name for gpu in found] == names
    assert all("CUDA_VISIBLE_DEVICES" in gpu.env for gpu in found)


def test_named_ones_of_amd_are_shown_its_way() -> None:
    assert chosen("1", asks(rocm=ROCM_SMI).get)[0].env == {"HIP_VISIBLE_DEVICES": "1"}


def test_a_cpu_sees_no_gpu() -> None:
    cpu = chosen("cpu", asks(nvidia=SMI).get)[0]
    assert cpu.arguments == ("--cpu",) and set(cpu.env.values()) == {""}


def test_none_is_said() -> None:
    assert present(asks(nvidia="No devices were found\n").get) == []
    with pytest.raises(ConfigError, match="No GPU was found"):
        chosen("auto", asks().get)
    with pytest.raises(ConfigError, match="same name"):
        chosen("a/b,a:b", asks().get)


@pytest.mark.parametrize("given", ["0,0", "auto,1", "0;rm", "a b"])
def test_what_the_setting_refuses(given: str) -> None:
    with pytest.raises(ValidationError):
        Settings.model_validate({"gpus": given})


def test_an_empty_setting_is_none() -> None:
    assert Settings.model_validate({"gpus": " , "}).gpus is None
    assert Settings.model_validate({"gpus": " 0, 1 "}).gpus == "0,1"
