"""Ends a piece of foreign code in the main thread that takes too long: an exception first, the whole process if it does
not help.
"""

import contextlib
import faulthandler
import signal
import sys
from collections.abc import Iterator
from types import FrameType

AGAIN_S = 5.0
HARD_MARGIN_S = 30.0


class TooSlow(BaseException):
    """Time is up. No Exception, so that code which swallows those is ended too."""


@contextlib.contextmanager
def alarm(limit_s: float, *, hard: bool) -> Iterator[None]:
    """Raise TooSlow in here after `limit_s`, and again every few seconds where it was swallowed. With `hard`, code that
    never returns to Python ends the process a while later, its traceback on standard error."""

    def ring(_number: int, _frame: FrameType | None) -> None:
        raise TooSlow

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, limit_s, AGAIN_S)
    if hard:
        faulthandler.dump_traceback_later(limit_s + HARD_MARGIN_S, exit=True, file=sys.__stderr__ or sys.stderr)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        if hard:
            faulthandler.cancel_dump_traceback_later()
