"""Processes forked from one that has imported what they need: a start costs a tenth of a fresh Python's.

Each is a process of its own, with its own descriptors, that signals end as they end any other.
"""

import contextlib
import multiprocessing
import os
import signal
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from pathlib import Path

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["tests.forked_imports"])


class Forked:
    """`run(*args)` in that environment, or in the caller's; what it prints is `stdout`, its errors go to the end of
    `log`."""

    def __init__(self, run: Callable[..., None], *args: str, log: Path, env: Mapping[str, str] | None = None) -> None:
        reader, writer = _CONTEXT.Pipe(duplex=False)
        given = (run, args, dict(os.environ if env is None else env), str(log), writer)
        self._process = _CONTEXT.Process(target=_begin, args=given, daemon=True)  # it never outlives the tests
        with writer:
            self._process.start()
        with reader:
            self.stdout = os.fdopen(os.dup(reader.fileno()), encoding="utf-8")
        assert self._process.pid is not None
        self.pid: int = self._process.pid

    def poll(self) -> int | None:
        """Its exit status once it has ended; a signal's number is negative."""
        return self._process.exitcode

    def wait(self, timeout_s: float) -> int:
        """Its exit status; TimeoutError where it has none by then."""
        self._process.join(timeout_s)
        status = self._process.exitcode
        if status is None:
            raise TimeoutError(f"Process {self.pid} has not ended in {timeout_s:g} s.")
        self.stdout.close()
        return status

    def send_signal(self, number: signal.Signals) -> None:
        """Signal it, unless it has ended: its number may be another's by then."""
        if self._process.exitcode is None:
            with contextlib.suppress(ProcessLookupError):  # it has ended, and nobody has said so yet
                os.kill(self.pid, number)

    def terminate(self) -> None:
        """SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)


def _begin(
    run: Callable[..., None], args: tuple[str, ...], environment: Mapping[str, str], log: str, output: Connection
) -> None:
    os.environ.clear()
    os.environ.update(environment)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    errors = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.dup2(output.fileno(), 1)
    os.dup2(errors, 2)
    os.close(errors)
    output.close()
    run(*args)
