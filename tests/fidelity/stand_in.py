"""What ComfyUI's own suite starts instead of `python main.py ...`, by a `python` that stands first in its PATH.

`direct` becomes that ComfyUI. `through` becomes `comfy-cluster relay` before a cluster with such a ComfyUI as its
backend: the suite's clients cannot send a token. Either way the suite may kill what it started, and all of it ends.
"""

import os
import subprocess
import sys
import tempfile
from argparse import ArgumentParser
from pathlib import Path

from tests.real_comfyui import DIRECTORIES

ROOT = Path(__file__).parent.parent.parent


def main() -> None:
    """Replace this process by the server."""
    base = Path(tempfile.mkdtemp(prefix="server-", dir=os.environ["FIDELITY_DIR"]))
    if os.environ["FIDELITY_WAY"] == "direct":
        _become_comfyui(base, sys.argv[2:])
    _become_relay(base, sys.argv[2:])


def _become_comfyui(base: Path, arguments: list[str]) -> None:
    python = os.environ["COMFYUI_PYTHON"]
    for name in DIRECTORIES:
        (base / name).mkdir()
    own = ["--base-directory", str(base), "--database-url", f"sqlite:///{base}/user/comfyui.db"]
    os.execv(python, [python, "main.py", *arguments, *own, "--disable-auto-launch"])


def _become_relay(base: Path, arguments: list[str]) -> None:
    parser = ArgumentParser()
    parser.add_argument("--listen")
    parser.add_argument("--port")
    where, rest = parser.parse_known_args(arguments)
    keeper = subprocess.Popen(
        [sys.executable, "-m", "tests.fidelity.keeper", str(base), *rest],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert keeper.stdin is not None and keeper.stdout is not None
    ready = keeper.stdout.readline()  # ends when the keeper does
    if not ready:
        (Path(os.environ["FIDELITY_DIR"]) / "failed").touch()
        sys.exit("The cluster did not start; see above.")
    url, token = ready.split()
    os.chdir(ROOT)
    os.set_inheritable(keeper.stdin.fileno(), True)  # the keeper ends when the relay's process does
    relay = [sys.executable, "-m", "proxy", "relay", "--listen", f"{where.listen}:{where.port}", "--server", url]
    os.execve(sys.executable, relay, {**os.environ, "COMFY_CLUSTER_TOKEN": token})


if __name__ == "__main__":
    main()
