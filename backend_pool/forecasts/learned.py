"""What is known of how long work takes, as values: running means by workflow and device, and what they say of the next.

Pure. Means follow slow changes, and one odd run moves them little. Nothing is ever made up: where nothing like it was
measured there is no estimate.
"""

import math
from collections import OrderedDict
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple

from backend_pool.forecasts.signature import Traits

RECENT = 0.2
"""Weight of the newest run once there are five."""
SURE_FROM = 3
"""Runs after which one that is far off counts as odd."""
ROWS_KEPT = 5000
"""What was not met for longest goes."""
NAME_LENGTH = 120

Kind = Literal["work", "group", "all", "load", "ratio"]


class Key(NamedTuple):
    """`what` is a signature, a group, a model or another device."""

    kind: Kind
    what: str
    device: str

    def __str__(self) -> str:
        return "\t".join(self)


@dataclass(frozen=True)
class Stat:
    """A running mean, the mean distance from it, and of how many."""

    mean_s: float
    spread_s: float = 0.0
    count: int = 1

    def with_one(self, seconds: float) -> "Stat":
        """After one more. A far-off one counts as the furthest that is believed, and widens what is."""
        if self.count >= SURE_FROM:
            limit_s = max(4 * self.spread_s, abs(self.mean_s))
            seconds = min(max(seconds, self.mean_s - limit_s), self.mean_s + limit_s)
        weight = max(1 / (self.count + 1), RECENT)
        off = seconds - self.mean_s
        return Stat(
            self.mean_s + weight * off, self.spread_s + weight * (abs(off) - self.spread_s), min(self.count + 1, 10**6)
        )


class Learned:
    """At most ROWS_KEPT means. `changed` and `gone` are for whoever stores them."""

    def __init__(self) -> None:
        self._stats: OrderedDict[Key, Stat] = OrderedDict()
        self._devices: dict[tuple[Kind, str], dict[str, Stat]] = {}
        self.changed: set[Key] = set()
        self.gone: set[Key] = set()

    def __len__(self) -> int:
        return len(self._stats)

    def stat(self, key: Key) -> Stat | None:
        """That mean."""
        return self._stats.get(key)

    def put(self, key: Key, stat: Stat) -> None:
        """Take over a stored mean."""
        self._stats[key] = stat
        self._stats.move_to_end(key)
        self._devices.setdefault((key.kind, key.what), {})[key.device] = stat
        while len(self._stats) > ROWS_KEPT:
            self._drop(next(iter(self._stats)))

    def learn(self, traits: Traits, device: str, work_s: float) -> None:
        """One run of such a workflow there took this long, loading aside."""
        for other, stat in self._devices.get(("work", traits.signature), {}).items():
            if other != device and min(stat.mean_s, work_s) > 0:
                self._note(Key("ratio", other, device), math.log(work_s / stat.mean_s))
        self._note(Key("work", traits.signature, device), work_s)
        self._note(Key("group", traits.group, device), work_s)
        self._note(Key("all", "", device), work_s)

    def learn_load(self, model: str, device: str, seconds: float) -> None:
        """Loading this model took this long there."""
        self._note(Key("load", model[-NAME_LENGTH:], device), seconds)

    def expect_s(self, traits: Traits, device: str | None = None) -> float | None:
        """How long such a workflow runs there, or on no device in particular, loading aside: from the same on that
        device, the same on another by the devices' known ratio, the like of it, or everything measured. None when
        nothing was."""
        kinds: tuple[tuple[Kind, str], ...] = (("work", traits.signature), ("group", traits.group), ("all", ""))
        means = (self._mean_s(kind, what, device) for kind, what in kinds if what or kind == "all")
        return next((mean_s for mean_s in means if mean_s is not None), None)

    def load_s(self, model: str, device: str) -> float | None:
        """How long the model takes to load there, or on the device where it was loaded most often."""
        found = self._devices.get(("load", model[-NAME_LENGTH:]), {})
        stat = found.get(device) or max(found.values(), key=lambda stat: stat.count, default=None)
        return None if stat is None else max(0.0, stat.mean_s)

    def _mean_s(self, kind: Kind, what: str, device: str | None) -> float | None:
        """The mean there, else on another device, by the ratio of the two where one is known."""
        found = self._devices.get((kind, what), {})
        if not found:
            return None
        if device is None:
            return sum(stat.mean_s * stat.count for stat in found.values()) / sum(stat.count for stat in found.values())
        if device in found:
            return found[device].mean_s
        rated = {other: ratio for other in found if (ratio := self._ratio(other, device)) is not None}
        other = max(rated or found, key=lambda name: found[name].count)
        return found[other].mean_s * rated.get(other, 1.0)

    def _ratio(self, device: str, to: str) -> float | None:
        """How much longer work takes on `to`."""
        for key, sign in ((Key("ratio", device, to), 1), (Key("ratio", to, device), -1)):
            stat = self._stats.get(key)
            if stat is not None:
                return math.exp(sign * max(-7.0, min(stat.mean_s, 7.0)))
        return None

    def _note(self, key: Key, seconds: float) -> None:
        if not math.isfinite(seconds) or (seconds < 0 and key.kind != "ratio"):
            return
        known = self._stats.get(key)
        self.put(key, Stat(seconds) if known is None else known.with_one(seconds))
        self.changed.add(key)
        self.gone.discard(key)

    def _drop(self, key: Key) -> None:
        del self._stats[key]
        devices = self._devices[(key.kind, key.what)]
        del devices[key.device]
        if not devices:
            del self._devices[(key.kind, key.what)]
        self.changed.discard(key)
        self.gone.add(key)


def key_of(text: str) -> Key | None:
    """A stored key; None for one that this version does not know."""
    parts = text.split("\t")
    match parts:
        case ["work" | "group" | "all" | "load" | "ratio" as kind, what, device]:
            return Key(kind, what, device)
    return None


@lru_cache(maxsize=256)
def device_class(name: str) -> str:
    """A GPU's name as ComfyUI's /system_stats tells it, without its number there and its allocator: of `cuda:1 NVIDIA
    H100 80GB HBM3 : cudaMallocAsync` it is `NVIDIA H100 80GB HBM3`; of an engine, that it is one."""
    head, _, rest = name.partition(" ")
    if ":" in head and rest:
        name = rest
    return " ".join(name.partition(" : ")[0].split())[:NAME_LENGTH]
