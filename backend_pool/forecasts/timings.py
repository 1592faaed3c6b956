"""Learned run and load times that outlive a restart: in memory for whoever asks, written a batch at a time.

Losing the last batch in a crash costs a little precision and nothing else. Several proxies share the rows; each takes
over what the others wrote, and the last writer of a row wins.
"""

import asyncio
from collections.abc import Mapping
from typing import Any

from sqlmodel import Session, col, delete, select

from backend_pool.books.tables import Timing
from backend_pool.forecasts.learned import ROWS_KEPT, Key, Learned, Stat, device_class, key_of
from backend_pool.forecasts.meter import Meter
from backend_pool.forecasts.signature import Traits
from proxy.base.clock import now_ms
from proxy.base.database import Database
from proxy.base.errors import ClusterError
from proxy.base.logs import events
from proxy.base.repeated import Repeated

log = events(__name__)
often = Repeated(log)

SAVE_EVERY_S = 10.0
READ_AGAIN_MS = 60_000
LOADED_AGAIN = 0.5
"""A model that was thought to be there and took this part of its time to load was not there."""


class Timings:
    """What work takes on which device. Everything but `load`, `save` and `watch` is memory alone."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._learned = Learned()
        self._read_ms = 0
        self.learned = 0
        """How often anything was learned."""

    def expect_s(self, traits: Traits, device: str | None = None) -> float | None:
        """How long such a workflow runs there, or on no device in particular, loading aside; None when nothing was ever
        measured. `device` as the backend calls it."""
        return self._learned.expect_s(traits, None if device is None else device_class(device))

    def load_s(self, model: str, device: str) -> float | None:
        """Seconds to load a model there; None when it was never seen to load."""
        return self._learned.load_s(model, device_class(device))

    def loads(self, models: frozenset[str], device: str) -> Mapping[str, float]:
        """Seconds by model, of those that are known."""
        found = {model: self.load_s(model, device) for model in models}
        return {model: seconds for model, seconds in found.items() if seconds is not None}

    def learn(self, traits: Traits, device: str, meter: Meter, cold: frozenset[str] = frozenset()) -> None:
        """Take in an attempt that succeeded. One that the cache or a lost connection made look short teaches nothing.

        `cold` are the models that it found not loaded: that they took little time to load is learned of these alone. Of
        one that was there already, a first text encoding is a little longer than the second now and then.
        """
        if not meter.ended_well:
            return
        device, loads_s = device_class(device), meter.loads_s
        if not traits.heaviest <= meter.executed:
            return
        self.learned += 1
        for model in (loads_s.keys() | cold) & traits.models:
            seconds = loads_s.get(model, 0.0)
            if model in cold or seconds >= LOADED_AGAIN * (self._learned.load_s(model, device) or 0.0):
                self._learned.learn_load(model, device, seconds)
        if traits.signature:
            self._learned.learn(traits, device, (meter.run_ms - meter.load_ms) / 1000)

    async def load(self) -> None:
        """Read what is stored, or what others have stored since. Raises DatabaseUnavailable."""
        since_ms, self._read_ms = self._read_ms, now_ms()
        query = select(Timing).where(col(Timing.used_ms) >= since_ms).order_by(col(Timing.used_ms).desc())
        rows = await self._db.read(lambda s: s.exec(query.limit(ROWS_KEPT)).all())
        for row in reversed(rows):
            key = key_of(row.key)
            if key is not None and key not in self._learned.changed:
                self.learned += 1
                self._learned.put(key, Stat(row.mean_s, row.spread_s, row.count))

    async def save(self) -> None:
        """Write what has changed. Raises DatabaseUnavailable; nothing is lost then."""
        changed, self._learned.changed = self._learned.changed, set()
        gone, self._learned.gone = self._learned.gone, set()
        if not changed and not gone:
            return
        rows = [_row(key, stat) for key in changed if (stat := self._learned.stat(key)) is not None]
        try:
            await self._db.write(lambda s: _write(s, rows, gone))
        except ClusterError:
            self._learned.changed |= changed
            self._learned.gone |= gone
            raise

    async def watch(self) -> None:
        """Keep memory and rows in step, for ever; what has changed is written at the end, too."""
        try:
            while True:
                await asyncio.sleep(SAVE_EVERY_S)
                await self._step()
        finally:
            await asyncio.shield(self._last())

    async def _step(self) -> None:
        try:
            await self.save()
            if now_ms() - self._read_ms > READ_AGAIN_MS:
                await self.load()
        except ClusterError as error:
            often.warning("learned times not stored", error=error.message)

    async def _last(self) -> None:
        try:
            await self.save()
        except ClusterError as error:
            often.warning("learned times not stored", error=error.message)


def _row(key: Key, stat: Stat) -> dict[str, Any]:
    return {
        "key": str(key),
        "mean_s": stat.mean_s,
        "spread_s": stat.spread_s,
        "count": stat.count,
        "used_ms": now_ms(),
    }


def _write(session: Session, rows: list[dict[str, Any]], gone: set[Key]) -> None:
    for row in rows:
        session.merge(Timing(**row))
    if gone:
        session.exec(delete(Timing).where(col(Timing.key).in_(sorted(map(str, gone)))))
