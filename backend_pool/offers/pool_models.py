"""The model files of a pool, and which backends have each. Values, made anew whenever a backend's lists change."""

from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

from backend_pool.offers.hidden_models import Hidden
from backend_pool.offers.offer import Provider
from backend_pool.prompts.spelling import spelled


class PoolModels:
    """Folders in the order in which the backends name them; each file once, as the first backend spells it."""

    def __init__(self, providers: Sequence[Provider], hidden: Hidden) -> None:
        self._files: dict[str, dict[str, list[int]]] = {}
        self._shown: dict[str, dict[str, str]] = {}
        for provider in providers:
            for folder, names in provider.offer.models.items():
                files, shown = self._files.setdefault(folder, {}), self._shown.setdefault(folder, {})
                for name in names:
                    if hidden and hidden.hides(name, folder):
                        continue
                    shown.setdefault(spelled(name), name)
                    files.setdefault(spelled(name), []).append(provider.key)
        self.everywhere = frozenset(name for files in self._files.values() for name in files)
        """Names of all files, whatever their folders."""

    def folders(self) -> list[str]:
        """Names of all folders."""
        return list(self._files)

    def names(self, folder: str) -> list[str] | None:
        """The files of a folder, None for a folder that no backend has."""
        shown = self._shown.get(folder)
        return None if shown is None else list(shown.values())

    def embeddings(self) -> list[str]:
        """Names of embeddings, without their endings."""
        return [str(PurePosixPath(spelled(name)).with_suffix("")) for name in self.names("embeddings") or ()]

    def owners(self, folder: str) -> Mapping[str, Sequence[int]]:
        """File, spelled with slashes -> keys of the backends that have it."""
        return self._files.get(folder, {})

    def having(self, folder: str, name: str) -> Sequence[int]:
        """Keys of the backends that have a file."""
        return self.owners(folder).get(spelled(name), ())
