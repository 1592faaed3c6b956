"""JSON as backends write it, made fit to store and to show. No I/O.

Custom nodes put NaN and Infinity into their outputs, and Python writes them as they are. Browsers and PostgreSQL
refuse such text, so they become null.
"""

import asyncio
import json
import math
from typing import Any

THREAD_FROM = 256 * 1024
"""Longer text is parsed in a thread: a history entry may have megabytes."""


def parse(text: str | bytes) -> Any:
    """The value of a JSON text, numbers that are not finite as None. Raises ValueError."""
    try:
        return json.loads(text, parse_constant=lambda _name: None, parse_float=_finite)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


async def parse_aside(text: str | bytes) -> Any:
    """`parse`, in a thread when the text is long."""
    if len(text) < THREAD_FROM:
        return parse(text)
    return await asyncio.to_thread(parse, text)


def _finite(digits: str) -> float | None:
    number = float(digits)
    return number if math.isfinite(number) else None
