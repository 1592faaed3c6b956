"""The last offer of each backend on disk, so that after a restart a backend that is away is still known.

Without it a job whose only backend is down would be refused, or sent to one that cannot run it, just because the proxy
was started again. One file per backend; losing one costs nothing but that. Blocking.
"""

import gzip
import hashlib
import json
import os
from pathlib import Path

from backend_pool.offers.offer import Offer
from backend_pool.prompts.node_info import usable
from proxy.base.logs import events

log = events(__name__)

FOLDER = "backends"
LEVEL = 3


class OfferStore:
    """Files in the data directory. Nothing raises: what cannot be kept is read from the backend again."""

    def __init__(self, data_dir: Path) -> None:
        self._folder = data_dir / FOLDER

    def load(self, key: int, url: str) -> Offer:
        """The last offer of that backend, an empty one when there is none; another URL is another backend."""
        try:
            with gzip.open(self._path(key), "rt", encoding="utf-8") as file:
                kept = json.load(file)
            if kept["url"] != _digest(url):
                return Offer()
            models = {str(folder): tuple(map(str, names)) for folder, names in kept["models"].items()}
            return Offer(usable(kept["info"]), models)
        except FileNotFoundError:
            return Offer()
        except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            log.warning("what a backend offered could not be read", backend=key, error=repr(error))
            return Offer()

    def save(self, key: int, url: str, offer: Offer) -> None:
        """Keep it, in place of the last one."""
        path = self._path(key)
        partial = path.with_name(f"{path.name}.part")
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            # Node by node: one call for megabytes would hold the interpreter from begin to end.
            nodes = [f"{json.dumps(name)}:{json.dumps(node)}" for name, node in offer.info.items()]
            text = f'{{"url":"{_digest(url)}","models":{json.dumps(offer.models)},"info":{{{",".join(nodes)}}}}}'
            packed = gzip.compress(text.encode(), LEVEL, mtime=0)
            with os.fdopen(os.open(partial, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "wb") as file:
                file.write(packed)
            partial.replace(path)
        except (OSError, ValueError) as error:
            log.warning("what a backend offers could not be kept", backend=key, error=repr(error))

    def forget(self, key: int) -> None:
        """The backend is gone."""
        try:
            self._path(key).unlink(missing_ok=True)
        except OSError as error:
            log.warning("what a backend offered could not be removed", backend=key, error=repr(error))

    def _path(self, key: int) -> Path:
        return self._folder / f"{key}.json.gz"


def _digest(url: str) -> str:
    """The URL may hold a password."""
    return hashlib.sha256(url.encode()).hexdigest()
