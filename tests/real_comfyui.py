"""Starts a real ComfyUI for tests marked `comfyui`.

COMFYUI_DIR names its checkout, COMFYUI_PYTHON an interpreter with its requirements, torch among them.
Each start gets directories of its own below `base_dir` and a free loopback port; the checkout is never written to.
"""

import contextlib
import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import pytest

START_TIMEOUT_S = 180.0
STOP_TIMEOUT_S = 15.0
DIRECTORIES = ("input", "output", "temp", "user", "models", "custom_nodes")
WHY_SKIPPED = (
    "no real ComfyUI: set COMFYUI_DIR (its checkout) and COMFYUI_PYTHON (an interpreter with its requirements)"
)


@dataclass
class RealComfyUI:
    """A running server; `base_dir` holds its input, output, temp, user, models and custom_nodes."""

    url: str
    base_dir: Path
    process: subprocess.Popen[bytes]

    def stop(self) -> None:
        """End it, by force if it does not listen."""
        self.process.terminate()
        try:
            self.process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(STOP_TIMEOUT_S)


def configured() -> bool:
    """Whether this machine has a real ComfyUI to test against."""
    return bool(os.environ.get("COMFYUI_DIR") and os.environ.get("COMFYUI_PYTHON"))


def start_real_comfyui(base_dir: Path, *arguments: str, custom_node: str | None = None) -> RealComfyUI:
    """A server that answers, or pytest.skip when none is configured. `custom_node` is an extra node pack's source."""
    if not configured():
        pytest.skip(WHY_SKIPPED)
    checkout, python = os.environ["COMFYUI_DIR"], os.environ["COMFYUI_PYTHON"]
    for name in DIRECTORIES:
        (base_dir / name).mkdir(parents=True, exist_ok=True)
    if custom_node is not None:
        (base_dir / "custom_nodes" / "test_pack.py").write_text(custom_node)
    port = _free_port()
    command = [python, "main.py", "--cpu", "--listen", "127.0.0.1", "--port", str(port), "--disable-auto-launch"]
    command += ["--base-directory", str(base_dir), "--database-url", f"sqlite:///{base_dir}/user/comfyui.db"]
    with (base_dir / "comfyui.log").open("ab") as log:
        process = subprocess.Popen(
            [*command, *arguments], cwd=checkout, stdout=log, stderr=log, stdin=subprocess.DEVNULL
        )
    server = RealComfyUI(f"http://127.0.0.1:{port}", base_dir, process)
    try:
        _wait_until_it_answers(server)
    except BaseException:
        server.kill()
        raise
    return server


def _wait_until_it_answers(server: RealComfyUI) -> None:
    # There is no event to wait for: its log lines differ between versions, its first answer does not.
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        with contextlib.suppress(urllib.error.URLError, ConnectionError, TimeoutError):
            with contextlib.suppress(urllib.error.HTTPError):  # with the worker pack it answers its dispatcher alone
                urllib.request.urlopen(f"{server.url}/system_stats", timeout=5).close()
            return
        if server.process.poll() is not None:
            break
        time.sleep(0.2)
    log = (server.base_dir / "comfyui.log").read_text(errors="replace")
    raise AssertionError(f"ComfyUI did not start (exit status {server.process.poll()}):\n{log[-4000:]}")


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
