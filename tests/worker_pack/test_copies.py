"""Directories that packs of nodes copied at their import follow the switch."""

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from backend_pool.worker_pack.comfy_copies import Copies
from backend_pool.worker_pack.host import Dirs

STARTUP = Dirs("/comfy/input", "/comfy", "/comfy/temp")  # one in another, as `--output-directory /comfy` makes it
ANN, BEN = Dirs("/a/input", "/a/output", "/a/temp"), Dirs("/b/input", "/b/output", "/b/temp")
PACK = """
from pathlib import Path
OUTPUT = {output!r}
DEEP = Path({output!r}) / "deep" / "er"
TEMP = {temp!r} + "/x"
OTHER = {output!r} + "-not"
class Node:
    folder = {input!r}
"""


@pytest.fixture
def packs(tmp_path: Path) -> Iterator[Path]:
    """An empty custom_nodes folder; what is imported from it is forgotten."""
    yield tmp_path
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


def load(folder: Path, name: str, now: Dirs) -> ModuleType:
    """Import a pack while those directories are on."""
    file = folder / f"{name}.py"
    file.write_text(PACK.format(output=now.output, temp=now.temp, input=now.input))
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def copied(module: ModuleType) -> list[object]:
    return [module.OUTPUT, module.DEEP, module.TEMP, module.Node.folder]


def test_copies_follow_the_switch(packs: Path) -> None:
    early = load(packs, "copies_early", STARTUP)
    copies = Copies([str(packs)])
    copies.to(STARTUP, STARTUP, ANN)
    assert copied(early) == ["/a/output", Path("/a/output/deep/er"), "/a/temp/x", "/a/input"]
    assert early.OTHER == "/comfy-not"
    copies.to(STARTUP, ANN, STARTUP)
    assert copied(early) == ["/comfy", Path("/comfy/deep/er"), "/comfy/temp/x", "/comfy/input"]


def test_a_pack_imported_during_a_job_keeps_nothing_of_its_user(packs: Path) -> None:
    copies = Copies([str(packs)])
    copies.to(STARTUP, STARTUP, ANN)
    late = load(packs, "copies_late", ANN)
    copies.to(STARTUP, ANN, STARTUP)
    assert late.OUTPUT == "/comfy"
    copies.to(STARTUP, STARTUP, BEN)
    assert copied(late) == ["/b/output", Path("/b/output/deep/er"), "/b/temp/x", "/b/input"]


def test_modules_elsewhere_are_left_alone(packs: Path) -> None:
    elsewhere = load(packs, "copies_elsewhere", STARTUP)
    Copies([str(packs / "custom_nodes")]).to(STARTUP, STARTUP, ANN)
    assert copied(elsewhere) == ["/comfy", Path("/comfy/deep/er"), "/comfy/temp/x", "/comfy/input"]
