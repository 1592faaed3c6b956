"""What to run next: the part of a prompt that its outputs need, dissolved from the leaves. Pure.

Among ready nodes an output goes first, then what leads to an output soonest, then the one met first: users see results
early, and the order is ComfyUI's.
"""

from collections.abc import Callable, Iterable

Parents = Callable[[str], Iterable[str]]


class Plan:
    """`pick` a node, run it, `finish` it; `pick` gives None when nothing is left or what is left waits in a circle."""

    def __init__(
        self,
        outputs: Iterable[str],
        parents: Parents,
        is_cached: Callable[[str], bool],
        is_output: Callable[[str], bool],
    ) -> None:
        self._is_output = is_output
        self._order: dict[str, int] = {}
        self._waits_for: dict[str, int] = {}
        self._feeds: dict[str, dict[str, None]] = {}
        self._ready: set[str] = set()
        for output in outputs:
            self._add(output, parents, is_cached)

    def pick(self) -> str | None:
        """The node to run next."""
        if not self._ready:
            return None
        ready = sorted(self._ready, key=self._order.__getitem__)
        for near in (self._is_output, self._feeds_output, self._leads_to_output):
            for node_id in ready:
                if near(node_id):
                    return node_id
        return ready[0]

    def finish(self, node_id: str) -> None:
        """The node has run; what waited for it alone becomes ready."""
        self._ready.discard(node_id)
        for child in self._feeds[node_id]:
            self._waits_for[child] -= 1
            if self._waits_for[child] == 0:
                self._ready.add(child)

    def _add(self, output: str, parents: Parents, is_cached: Callable[[str], bool]) -> None:
        todo = [output]
        while todo:
            node_id = todo.pop()
            if node_id in self._order:
                continue
            self._order[node_id] = len(self._order)
            self._feeds.setdefault(node_id, {})
            needed = [] if is_cached(node_id) else [p for p in dict.fromkeys(parents(node_id)) if not is_cached(p)]
            self._waits_for[node_id] = len(needed)
            for parent in needed:
                self._feeds.setdefault(parent, {})[node_id] = None
            todo += needed
            if not needed:
                self._ready.add(node_id)

    def _feeds_output(self, node_id: str) -> bool:
        return any(self._is_output(child) for child in self._feeds[node_id])

    def _leads_to_output(self, node_id: str) -> bool:
        return any(self._feeds_output(child) for child in self._feeds[node_id])
