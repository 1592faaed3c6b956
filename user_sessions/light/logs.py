"""The last log lines of this session, for the WebUI's terminal: a ring of 300 entries fed by `logging`.

Holds nobody else's lines: the process serves one user. Overflow drops the oldest.
"""

import logging
from collections import deque
from collections.abc import Callable
from datetime import datetime

from proxy.base.logs import FIELDS, TextFormatter

Entry = dict[str, str]

CAPACITY = 300
TERMINAL = {"cols": 120, "rows": 40}


class LogRing(logging.Handler):
    """`{"t": ISO time, "m": text with its line end}` entries, newest last, as ComfyUI keeps them."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        super().__init__(logging.INFO)
        self.setFormatter(TextFormatter())
        self.entries: deque[Entry] = deque(maxlen=capacity)
        self.listener: Callable[[Entry], None] | None = None
        """Called with each entry, from whichever thread logs."""

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one line; logging must never raise."""
        try:
            entry = {"t": datetime.now().astimezone().isoformat(), "m": self.format(record) + "\n"}
            self.entries.append(entry)
            if self.listener is not None:
                self.listener(entry)
        except Exception:
            self.handleError(record)

    def say(self, message: str, **fields: object) -> None:
        """A line of ours in the terminal, at whatever level the server logs."""
        record = {"name": "session", "levelno": logging.INFO, "levelname": "INFO", "msg": message, FIELDS: fields}
        self.emit(logging.makeLogRecord(record))

    def text(self) -> str:
        """All of it as `/internal/logs` shows it."""
        return "".join(f"{entry['t']} - {entry['m']}" for entry in self.entries)
