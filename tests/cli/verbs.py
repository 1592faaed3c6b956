"""The command `comfy-cluster`, run to its end: in the test's own process, or as a program where that is the point.

A Python costs most of a second to start, so nearly all tests take the first way: the same entry point with arguments,
input and environment of its own. What an ended process would take along (the settings of logging) is put back.
"""

import contextlib
import io
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from unittest.mock import patch

from proxy.cli import main
from tests.cluster import STOP_TIMEOUT_S, environment

Done = subprocess.CompletedProcess[str]


def cli(*args: str, stdin: str = "", env: dict[str, str] | None = None) -> Done:
    """Run `comfy-cluster <args>` here. In an async test call it by `asyncio.to_thread`: some verbs have a loop."""
    out, err = io.StringIO(), io.StringIO()
    code: object = "it returned"
    with (
        patch.object(sys, "argv", ["comfy-cluster", *args]),
        patch.object(sys, "stdin", io.StringIO(stdin)),
        patch.dict(os.environ, environment(env), clear=True),
        _logging_kept(),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            main()
        except SystemExit as ended:
            code = ended.code
    assert isinstance(code, int), code
    return Done(list(args), code, out.getvalue(), err.getvalue())


def program(*args: str, stdin: str = "", env: dict[str, str] | None = None) -> Done:
    """Run `comfy-cluster <args>` as a process."""
    return subprocess.run(
        [sys.executable, "-m", "proxy", *args],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=STOP_TIMEOUT_S,
        check=False,
        env=environment(env),
    )


def refused(done: Done, code: int, *words: str) -> None:
    """It failed with that code, printed nothing, and said why in one line that holds all `words`."""
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("Error: ")
    for word in words:
        assert word in lines[0]


@contextlib.contextmanager
def _logging_kept() -> Iterator[None]:
    loggers = [
        logging.getLogger(),
        *(each for each in logging.root.manager.loggerDict.values() if isinstance(each, logging.Logger)),
    ]
    levels = [(logger, logger.level) for logger in loggers]
    handlers = logging.root.handlers[:]
    try:
        yield
    finally:
        logging.root.handlers[:] = handlers
        for logger, level in levels:
            logger.setLevel(level)
