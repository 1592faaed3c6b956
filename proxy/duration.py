"""Lengths of time as people write them: `90s`, `10m`, `2h`, `1d`, or plain seconds. Pure."""

import re

from proxy.base.errors import BadInput

UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}
PATTERN = re.compile(r"(\d{1,9}(?:\.\d{1,3})?)\s*([smhd]?)", re.ASCII)
LONGEST_S = 366 * 86_400


def seconds_of(text: str) -> float:
    """Seconds, at most a year. Raises BadInput."""
    found = PATTERN.fullmatch(text.strip())
    seconds = float(found[1]) * UNITS[found[2]] if found else -1.0
    if not 0 <= seconds <= LONGEST_S:
        raise BadInput(f"{text[:40]!r} is no length of time. Write it as 90s, 10m, 2h or 1d.")
    return seconds
