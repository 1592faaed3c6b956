"""The latest log lines for /internal/logs. Bounded: the oldest line leaves."""

import logging
from collections import deque
from datetime import UTC, datetime

LINES_KEPT = 300

_lines: deque[dict[str, str]] = deque(maxlen=LINES_KEPT)


class Ring(logging.Handler):
    """Keeps what it is given, in ComfyUI's form: time `t` and message `m`."""

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one line."""
        time = datetime.fromtimestamp(record.created, UTC).isoformat()
        _lines.append({"t": time, "m": f"{self.format(record)}\n"})


def entries() -> list[dict[str, str]]:
    """The lines kept, oldest first."""
    return list(_lines)
