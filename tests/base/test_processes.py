"""Daemons: recorded, found again, never mistaken for a stranger with the same pid, and ended."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy.base.errors import Unavailable
from proxy.base.processes import Daemon, launch, recorded, start_time

SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]
DEAF = "import signal, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); open(sys.argv[1], 'w'); time.sleep(60)"
WAIT_S = 10.0


@pytest.fixture
def record(tmp_path: Path) -> Path:
    return tmp_path / "d.json"


@pytest.fixture
def daemon(record: Path, tmp_path: Path) -> Iterator[Daemon]:
    started = launch(SLEEP, record, tmp_path / "d.log")
    yield started
    started.stop(WAIT_S)


def test_a_daemon_is_found_again(daemon: Daemon, record: Path) -> None:
    assert daemon.alive()
    assert recorded(record) == daemon
    assert os.getsid(daemon.pid) == daemon.pid  # Ctrl-C in our terminal does not reach it


def test_it_ends_when_asked(daemon: Daemon, record: Path) -> None:
    assert daemon.stop(WAIT_S)
    assert not daemon.alive()
    assert recorded(record) is None
    assert daemon.stop(WAIT_S)  # again: nothing to do


def test_who_does_not_listen_is_killed(tmp_path: Path, record: Path) -> None:
    ready = tmp_path / "ready"
    os.mkfifo(ready)
    deaf = launch([sys.executable, "-c", DEAF, str(ready)], record, tmp_path / "log")
    ready.open().close()  # it has opened its end: it ignores the signal by now
    assert deaf.stop(0.05)
    assert not deaf.alive()


def test_a_stranger_with_the_same_pid_is_not_it(daemon: Daemon, record: Path) -> None:
    record.write_text(json.dumps({"pid": os.getpid(), "started": daemon.started - 1}))
    assert recorded(record) is None
    stranger = Daemon(daemon.pid, daemon.started - 1)
    assert stranger.stop(WAIT_S)
    assert daemon.alive()


def test_a_zombie_does_not_run() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # ended, not yet reaped
        assert start_time(child.pid) is None


def test_a_misleading_name_is_read_rightly() -> None:
    code = "import ctypes; ctypes.CDLL(None).prctl(15, b'a) Z 1 (b'); print(1, flush=True); import time; time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        assert start_time(child.pid)
        child.send_signal(signal.SIGKILL)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"pid": "x", "started": 1}', '{"pid": 1}', '"a"'])
def test_a_broken_record_is_no_daemon(record: Path, text: str) -> None:
    record.write_text(text)
    assert recorded(record) is None


def test_no_record_is_no_daemon(record: Path) -> None:
    assert recorded(record) is None


def test_its_output_is_appended_to_its_log(tmp_path: Path, record: Path) -> None:
    log = tmp_path / "log"
    log.write_text("before\n")
    daemon = launch([sys.executable, "-c", "import sys; print('out'); print('err', file=sys.stderr)"], record, log)
    os.waitpid(daemon.pid, 0)
    assert sorted(log.read_text().split()) == ["before", "err", "out"]


def test_what_cannot_be_started_says_so(tmp_path: Path, record: Path) -> None:
    with pytest.raises(Unavailable, match="No such file"):
        launch([str(tmp_path / "none")], record, tmp_path / "log")
    assert not record.exists()
