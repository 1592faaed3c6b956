"""The doctor's lines about managed backends, without a GPU and without starting anything."""

import sys
from pathlib import Path
from typing import Any

import pytest

from backend_pool.workers.install import FOLDER
from proxy.base.settings import Settings
from proxy.doctor.finding import Finding
from proxy.doctor.managed import managed
from proxy.doctor.network import ask

NEEDED = ("main.py", "folder_paths.py", "server.py", "nodes.py")


def findings(root: Path, **settings: Any) -> list[Finding]:
    comfyui = root / "ComfyUI"
    (comfyui / "custom_nodes").mkdir(parents=True, exist_ok=True)
    for name in NEEDED:
        (comfyui / name).touch()
    (comfyui / "comfyui_version.py").write_text('__version__ = "0.8.0"\n')
    given = {"data_dir": root / "data", "backend_comfyui": comfyui, "backend_python": sys.executable, **settings}
    return list(managed(Settings.model_validate(given)))


def test_a_machine_that_is_well(tmp_path: Path) -> None:
    found = findings(tmp_path, gpus="cpu")
    assert [finding.bad for finding in found] == [False, False]
    assert "ComfyUI 0.8.0" in found[0].detail and "does not run" in found[1].detail


@pytest.mark.parametrize(("gpus", "noted"), [(None, True), ("cpu", False)])
async def test_no_engine_is_announced_where_comfyuis_will_run(tmp_path: Path, gpus: str | None, noted: bool) -> None:
    found = await ask(Settings(data_dir=tmp_path, gpus=gpus, port=0))
    assert ("embedded engine" in str(found)) is noted


def test_the_last_words_of_what_crashed(tmp_path: Path) -> None:
    (tmp_path / "data" / "logs").mkdir(parents=True)
    (tmp_path / "data" / "logs" / "gpu-cpu.log").write_text("starting\nRuntimeError: no kernel image\n")
    assert findings(tmp_path, gpus="cpu")[1].detail.endswith("ends with: RuntimeError: no kernel image")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"backend_comfyui": None}, "Which ComfyUI"),
        ({"backend_comfyui": "/nowhere"}, "is no ComfyUI"),
        ({"backend_args": ["--port=1"]}, "--port=1"),
    ],
)
def test_what_has_to_be_mended(tmp_path: Path, settings: dict[str, Any], words: str) -> None:
    found = findings(tmp_path, gpus="cpu", **settings)
    assert len(found) == 1 and found[0].bad and words in found[0].detail


def test_a_pack_in_the_checkout(tmp_path: Path) -> None:
    (tmp_path / "ComfyUI" / "custom_nodes" / FOLDER).mkdir(parents=True)
    assert any(finding.bad and "worker-pack uninstall" in finding.detail for finding in findings(tmp_path, gpus="cpu"))
