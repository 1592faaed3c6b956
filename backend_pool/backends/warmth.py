"""What one backend holds loaded, as far as one can know from outside: the models of its last jobs, and whose they were.

ComfyUI drops from its cache what the latest prompt does not have, and with it the models, unless it was started with a
cache of several prompts. So more than the last job's models count only where the server says that it keeps them, and
only as much as its memory holds.
"""

from collections import OrderedDict
from collections.abc import Collection, Mapping
from typing import Any

from backend_pool.comfy.client import ComfyClient
from backend_pool.errors import BackendError

MB = 1024 * 1024
KEEPS = ("--cache-lru", "--cache-ram")
"""Options of ComfyUI by which results, and the models they hold, outlive the next prompt."""
ENGINE = "none (embedded engine)"
LISTS_TIMEOUT_S = 5.0


class Warmth:
    """One backend's; forgotten when it went down, was restarted or told to free its memory."""

    def __init__(self) -> None:
        self._models: OrderedDict[str, int | None] = OrderedDict()
        """Size in MiB where it is known; the one used longest ago first."""
        self._sizes: dict[str, int] = {}
        self._listed: set[str] = set()
        self.user_id: int | None = None
        self.graph = ""
        """Whose results of which workflow it has in its cache."""
        self.known = False
        """Whether it has run or forgotten something since we look: what it had loaded before, nobody can say."""

    @property
    def models(self) -> frozenset[str]:
        """Loaded ones, as `checkpoints:flux-dev.safetensors`."""
        return frozenset(self._models)

    def ran(self, user_id: int, graph: str, models: Collection[str], room_mb: int | None) -> None:
        """It has run a job with these. `room_mb` None: it keeps nothing of earlier ones."""
        self.user_id, self.graph, self.known = user_id, graph, True
        if room_mb is None:
            self._models.clear()
        for model in sorted(models):
            self._models.pop(model, None)
            self._models[model] = self._sizes.get(model)
        self._evict(models, room_mb)

    def forget(self) -> None:
        """Nothing is loaded any more."""
        self._models.clear()
        self.user_id, self.graph, self.known = None, "", True

    async def measure(self, client: ComfyClient) -> None:
        """Ask once for the sizes of the models' folders; a server that does not tell keeps one job's models."""
        for folder in {model.partition(":")[0] for model in self._models} - self._listed:
            self._listed.add(folder)
            try:
                rows = await client.get_json(f"/experiment/models/{folder}", LISTS_TIMEOUT_S)
            except BackendError:
                continue
            for row in rows if isinstance(rows, list) else ():
                size = row.get("size") if isinstance(row, dict) else None
                if isinstance(size, int):
                    self._sizes[f"{folder}:{str(row.get('name')).replace(chr(92), '/')}"] = size // MB
        for model, size in self._models.items():
            self._models[model] = self._sizes.get(model, size)

    def _evict(self, latest: Collection[str], room_mb: int | None) -> None:
        older = [model for model in self._models if model not in latest]
        if room_mb is None or any(size is None for size in self._models.values()):
            for model in older:
                del self._models[model]
            return
        for model in older:
            if sum(size or 0 for size in self._models.values()) <= room_mb:
                return
            del self._models[model]


def room_mb(stats: Mapping[str, Any], vram_mb: int) -> int | None:
    """The memory for models of a server that keeps those of earlier jobs; None of any other. Of `/system_stats`."""
    system = stats.get("system")
    told = system if isinstance(system, Mapping) else {}
    argv = told.get("argv")
    keeps = isinstance(argv, list) and any(option in argv for option in KEEPS)
    return vram_mb if keeps or str(told.get("pytorch_version")) == ENGINE else None
