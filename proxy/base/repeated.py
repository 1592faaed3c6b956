"""A log for what fails again and again, such as a loop whose database is away: one line a minute, not one a turn.

Wraps a module's event log; what was left out is counted in the next line (`like_it_before`). Owns no loop.
"""

from collections.abc import Callable

from proxy.base.logs import Events, ExcInfo
from proxy.base.seldom import Seldom

EVERY_S = 60.0


class Repeated:
    """`often = Repeated(log)`, then `often.error(...)` as `log.error(...)`; `error` and `exc_info` tell kinds apart."""

    def __init__(self, log: Events, every_s: float = EVERY_S) -> None:
        self._log = log
        self._seldom = Seldom(every_s)

    def warning(self, message: str, *, exc_info: ExcInfo = None, **fields: object) -> None:
        """As the log's."""
        self._write(self._log.warning, message, exc_info, fields)

    def error(self, message: str, *, exc_info: ExcInfo = None, **fields: object) -> None:
        """As the log's."""
        self._write(self._log.error, message, exc_info, fields)

    def _write(self, write: Callable[..., None], message: str, exc_info: ExcInfo, fields: dict[str, object]) -> None:
        left_out = self._seldom.once(f"{message} {fields.get('error')!s} {exc_info!r}")
        if left_out is not None:
            more = {"like_it_before": left_out} if left_out else {}
            write(message, exc_info=exc_info, **fields, **more)
