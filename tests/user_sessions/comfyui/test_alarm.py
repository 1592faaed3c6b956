"""Ending foreign code that takes too long: an exception where it listens, the process where it does not."""

import signal
import subprocess
import sys
import time

import pytest

from user_sessions.comfyui.alarm import TooSlow, alarm

DEAF = """
import signal, time
from user_sessions.comfyui import alarm
alarm.HARD_MARGIN_S = 0.2
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
with alarm.alarm(0.1, hard=True):
    time.sleep(60)
print("it came back")
"""


def test_code_that_listens_is_interrupted() -> None:
    before = signal.getsignal(signal.SIGALRM)
    with pytest.raises(TooSlow), alarm(0.05, hard=False):
        time.sleep(60)
    assert signal.getsignal(signal.SIGALRM) is before
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_code_in_time_is_left_alone() -> None:
    with alarm(60, hard=True):
        done = True
    assert done


def test_code_that_does_not_listen_ends_the_process_and_shows_where_it_was() -> None:
    done = subprocess.run([sys.executable, "-c", DEAF], check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and done.stdout == ""
    assert "Timeout" in done.stderr and "line 7" in done.stderr
