"""Names in the order of their keys, where keys change often: a heap that forgets lazily.

Bounded: outdated entries never outnumber the valid ones by more than SLACK.
"""

from collections.abc import Iterator
from heapq import heapify, heappop, heappush

Key = tuple[float, ...]

SLACK = 16


class Ranking:
    """Setting and dropping cost the logarithm of its length, the first is at hand."""

    __slots__ = ("_heap", "_keys", "_shared")

    def __init__(self) -> None:
        self._keys: dict[int, Key] = {}
        self._heap: list[tuple[Key, int]] = []
        self._shared = False
        """Whether a copy reads the same; then nobody writes there any more."""

    def __len__(self) -> int:
        return len(self._keys)

    def __contains__(self, name: int) -> bool:
        return name in self._keys

    def set(self, name: int, key: Key) -> None:
        """Rank `name` by `key` from now on."""
        if self._keys.get(name) == key:
            return
        self._part()
        self._keys[name] = key
        heappush(self._heap, (key, name))
        self._compact()

    def drop(self, name: int) -> None:
        """Rank it no more; nothing happens to an unknown one."""
        if name in self._keys:
            self._part()
            del self._keys[name]
            self._compact()

    def first(self) -> tuple[Key, int] | None:
        """The least key and its name."""
        while self._heap:
            key, name = self._heap[0]
            if self._keys.get(name) == key:
                return self._heap[0]
            self._part()
            heappop(self._heap)
        return None

    def in_order(self) -> Iterator[tuple[Key, int]]:
        """All of them, the next one costs the logarithm of those before it. The ranking must not change meanwhile."""
        heap, last = self._heap, None
        ahead = [(heap[0], 0)] if heap else []
        while ahead:
            entry, index = heappop(ahead)
            for child in (2 * index + 1, 2 * index + 2):
                if child < len(heap):
                    heappush(ahead, (heap[child], child))
            key, name = entry
            if entry != last and self._keys.get(name) == key:  # a key that was set again is there twice
                last = entry
                yield entry

    def copy(self) -> "Ranking":
        """One that goes its own way, from the first change on; may be read and changed in another thread."""
        twin = Ranking.__new__(Ranking)
        twin._keys, twin._heap = self._keys, self._heap
        twin._shared = self._shared = True
        return twin

    def _part(self) -> None:
        if self._shared:
            self._keys, self._heap, self._shared = self._keys.copy(), self._heap.copy(), False

    def _compact(self) -> None:
        if len(self._heap) > 2 * len(self._keys) + SLACK:
            self._heap = [(key, name) for name, key in self._keys.items()]
            heapify(self._heap)
