"""Wall and monotonic time. Stored times are integer milliseconds since the epoch, UTC, as in ComfyUI's `timestamp`."""

import time

DAY_MS = 86_400_000


def now_ms() -> int:
    """Milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


def monotonic_s() -> float:
    """Seconds that never run backwards; for durations and deadlines only."""
    return time.monotonic()
