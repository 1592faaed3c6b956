"""Logs are events: a constant message and structured fields, as text for people or JSON lines for machines.

Secrets never reach a log: fields whose name says so are masked here, and no caller passes query strings.
"""

import json
import logging
import sys
from types import TracebackType
from typing import Any, Literal

SECRET_WORDS = ("password", "secret", "token", "cookie", "authorization")
FIELDS = "cluster_fields"

ExcInfo = BaseException | bool | tuple[type[BaseException], BaseException, TracebackType | None] | None


class Events:
    """A logger whose methods take a constant message and fields: `log.info("job placed", job=..., backend=...)`."""

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(name)

    def debug(self, message: str, **fields: object) -> None:
        self._write(logging.DEBUG, message, None, fields)

    def info(self, message: str, **fields: object) -> None:
        self._write(logging.INFO, message, None, fields)

    def warning(self, message: str, *, exc_info: ExcInfo = None, **fields: object) -> None:
        self._write(logging.WARNING, message, exc_info, fields)

    def error(self, message: str, *, exc_info: ExcInfo = None, **fields: object) -> None:
        self._write(logging.ERROR, message, exc_info, fields)

    def _write(self, level: int, message: str, exc_info: ExcInfo, fields: dict[str, object]) -> None:
        if self._logger.isEnabledFor(level):
            self._logger.log(level, message, exc_info=exc_info, extra={FIELDS: fields}, stacklevel=3)


def events(name: str) -> Events:
    """The event logger of a module."""
    return Events(name)


def configure(level: str, style: Literal["text", "json"]) -> None:
    """Send everything to standard error in one style. Uvicorn's and aiohttp's loggers propagate into it."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if style == "json" else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # uvicorn.error notes every WebSocket with its query string, which may carry a token.
    for chatty in ("httpx", "httpcore", "asyncio", "alembic", "aiohttp.access", "PIL", "uvicorn.error"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


def fields_of(record: logging.LogRecord) -> dict[str, object]:
    """The structured fields of a record, secrets masked."""
    fields: dict[str, Any] = getattr(record, FIELDS, None) or {}
    return {key: "***" if any(word in key.lower() for word in SECRET_WORDS) else value for key, value in fields.items()}


class TextFormatter(logging.Formatter):
    """`12:00:01 INFO  proxy.app: message  key=value`."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s: %(message)s", "%H:%M:%S")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's own name
        tail = " ".join(f"{key}={value}" for key, value in fields_of(record).items())
        text = super().formatMessage(record)
        return f"{text}  {tail}" if tail else text


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S") + f".{int(record.msecs):03d}",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        } | fields_of(record)
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)
