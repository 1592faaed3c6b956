"""Real embedded engines for tests: `start_engine(base_dir)` gives one on a free port, in a process of its own."""

import sys
from dataclasses import dataclass
from pathlib import Path

from backend_pool.engine.__main__ import main
from tests.forked import Forked

START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 10.0


@dataclass
class Engine:
    """A running engine. End it with `stop` (SIGTERM, status 0) or `kill` (SIGKILL)."""

    url: str
    process: Forked
    base_dir: Path
    log: Path

    def stop(self) -> int:
        """SIGTERM, and the exit status; harmless when it has ended."""
        self.process.terminate()
        return self._wait()

    def kill(self) -> None:
        """SIGKILL: nothing is cleaned up."""
        self.process.kill()
        self._wait()

    def wait(self) -> int:
        """The exit status of an engine that ends by itself (the crash fault)."""
        return self._wait()

    def _wait(self) -> int:
        return self.process.wait(STOP_TIMEOUT_S)


def start_engine(base_dir: Path, *args: str) -> Engine:
    """Start an engine with quick steps and faults allowed; `args` are added to (and win over) these."""
    base_dir.mkdir(parents=True, exist_ok=True)
    log = base_dir / "engine.log"
    quick = ["--step-ms", "5", "--model-load-ms", "0", "--faults"]
    process = Forked(_run, "--base-dir", str(base_dir), *quick, *args, log=log)
    line = process.stdout.readline()  # ends when the process does, so a failed start cannot hang
    if not line.startswith("Ready: "):
        process.kill()
        process.wait(STOP_TIMEOUT_S)
        raise RuntimeError(f"The engine did not start: {line!r} {log.read_text()[-2000:]}")
    return Engine(line.removeprefix("Ready: ").strip(), process, base_dir, log)


def _run(*args: str) -> None:
    """What `python -m backend_pool.engine` does; one that begins anew starts by its command line."""
    sys.argv = ["backend_pool.engine", *args]
    sys.orig_argv = [sys.executable, "-m", *sys.argv]
    main()
