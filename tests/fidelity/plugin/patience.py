"""A plugin for ComfyUI's own suite: its clients wait for a server that takes long to start on a busy machine.

The suite gives a server twenty seconds. A server that could not start leaves a file `failed`. Runs in the interpreter
of ComfyUI and may import nothing of this project.
"""

import importlib
import os
import time
from pathlib import Path
from typing import Any

PATIENCE_S = 240.0
PAUSE_S = 0.2


def pytest_configure() -> None:
    """Let the suite's websocket clients try again while nobody listens."""
    failed = Path(os.environ["FIDELITY_DIR"]) / "failed"
    socket: Any = importlib.import_module("websocket").WebSocket
    connect = socket.connect

    def patient(self: Any, *args: Any, **options: Any) -> Any:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                return connect(self, *args, **options)
            except ConnectionRefusedError:
                if time.monotonic() > deadline or failed.exists():
                    raise
                time.sleep(PAUSE_S)

    socket.connect = patient
