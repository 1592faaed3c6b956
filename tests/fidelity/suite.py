"""ComfyUI's own suite, `tests/execution` of its checkout, run directly or through the proxy; its outcomes by test.

It is read from COMFYUI_DIR at run time and never copied: its licence is the GPL. Needs pytest, websocket-client, Pillow
and numpy beside torch in COMFYUI_PYTHON (PYTHONPATH is passed on).

`python -m tests.fidelity.suite direct|through FOLDER [pytest arguments]` runs it by hand.
"""

import os
import socket
import subprocess
import sys
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).parent.parent.parent
PLUGINS = Path(__file__).parent / "plugin"
SUITE = "tests/execution"
NEEDED = "import pytest, websocket, numpy, PIL, torch"
TIMEOUT_S = 3600.0

Outcomes = dict[str, str]
"""`file::class::test[parameters]` -> passed, failed, error or skipped."""


def missing() -> str | None:
    """What keeps the suite from running here; None when nothing does."""
    checkout, python = os.environ.get("COMFYUI_DIR"), os.environ.get("COMFYUI_PYTHON")
    if not checkout or not python:
        return "no real ComfyUI: set COMFYUI_DIR and COMFYUI_PYTHON"
    if not (Path(checkout) / SUITE / "testing_nodes").is_dir():
        return f"{checkout} has no {SUITE}: it is no git checkout of ComfyUI"
    if subprocess.run([python, "-c", NEEDED], capture_output=True, check=False).returncode:
        return f"{python} cannot run ComfyUI's suite: install pytest and websocket-client there"
    return None


def run_suite(way: str, folder: Path, *arguments: str) -> Outcomes:
    """Run it `direct` or `through`; everything it and its servers write is below `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    report = folder / "report.xml"
    command = [os.environ["COMFYUI_PYTHON"], "-m", "pytest", SUITE, "-p", "no:cacheprovider", "-p", "patience"]
    command += ["--junitxml", str(report), "--output_dir", str(folder / "output"), "--port", str(_free_port())]
    command += ["--skip-timing-checks", *arguments]
    with (folder / "suite.log").open("w") as log:
        subprocess.run(
            command,
            cwd=os.environ["COMFYUI_DIR"],
            env=_environment(way, folder),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            timeout=TIMEOUT_S,
            check=False,
        )
    return outcomes(ElementTree.parse(report))


def outcomes(report: "ElementTree.ElementTree[ElementTree.Element]") -> Outcomes:
    """The outcomes in a JUnit report."""
    found = {}
    for case in report.iter("testcase"):
        place = case.get("classname", "").removeprefix("tests.execution.").replace(".", "::")
        ends = [kind for kind in ("error", "failure", "skipped") if case.find(kind) is not None]
        found[f"{place}::{case.get('name')}"] = (ends or ["passed"])[0].replace("failure", "failed")
    return found


def counted(of: Outcomes) -> str:
    """Such as `287 passed, 7 skipped`."""
    return ", ".join(f"{number} {kind}" for kind, number in sorted(Counter(of.values()).items()))


def _environment(way: str, folder: Path) -> dict[str, str]:
    tools = folder / "bin"
    tools.mkdir(exist_ok=True)
    stand_in = tools / "python"
    # By its path, not by -m: the suite runs in ComfyUI's checkout, which has a package `tests` of its own.
    script = ROOT / "tests" / "fidelity" / "stand_in.py"
    stand_in.write_text(f'#!/bin/sh\nPYTHONPATH="{ROOT}" exec "{sys.executable}" "{script}" "$@"\n')
    stand_in.chmod(0o755)
    paths = [str(PLUGINS), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {
        **os.environ,
        "PATH": f"{tools}:{os.environ['PATH']}",
        "PYTHONPATH": ":".join(paths),
        "PYTHONDONTWRITEBYTECODE": "1",
        "FIDELITY_WAY": way,
        "FIDELITY_DIR": str(folder),
    }


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


if __name__ == "__main__":
    found = run_suite(sys.argv[1], Path(sys.argv[2]).absolute(), *sys.argv[3:])
    for name, outcome in found.items():
        if outcome not in ("passed", "skipped"):
            print(f"{outcome}: {name}")
    print(f"{sys.argv[1]}: {counted(found)}")
