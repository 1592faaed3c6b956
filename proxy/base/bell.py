"""Waiting for a bell or the next poll, whichever comes first.

Not `asyncio.wait_for`: on Python 3.11 it swallows a cancellation that arrives together with the bell.
"""

import asyncio


async def rung(bell: asyncio.Event, timeout_s: float) -> bool:
    """Wait for `bell` at most that long and reset it; True when it rang."""
    try:
        async with asyncio.timeout(timeout_s):
            await bell.wait()
    except TimeoutError:
        return False
    finally:
        bell.clear()
    return True
