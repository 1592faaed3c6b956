"""The compressed frontend that a server makes in the background at its first start, made once for all servers of a run.

Each would spend two seconds of a processor on it, beside the tests. The first one asked for is built here; servers get
links to its files, and build their own where there can be none (another file system).
"""

import fcntl
import shutil
from pathlib import Path

from proxy.base.settings import Settings
from proxy.data_dir import prepare
from user_sessions.light import asset_cache
from user_sessions.light.assets import Frontend
from user_sessions.runtime_options import runtime_options
from user_sessions.runtimes import FRONTEND_CACHE


class PackedFrontend:
    """Nothing is lent until `place` is known: a program other than pytest may start servers too."""

    def __init__(self) -> None:
        self.place: Path | None = None

    def lend(self, data_dir: Path) -> None:
        """Give a data directory its copy, unless it has one; it need not exist."""
        if self.place is None:
            return
        frontend = Frontend.installed(None)
        target = Path(runtime_options(Settings(data_dir=data_dir), "light")[FRONTEND_CACHE]) / frontend.cache_name
        if target.exists():
            return
        prepare(data_dir)
        self.place.mkdir(exist_ok=True)
        with (self.place / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            asset_cache.build(frontend.root, self.place, frontend.cache_name)
        try:
            shutil.copytree(self.place / frontend.cache_name, target, copy_function=_link)
        except shutil.Error:
            shutil.rmtree(target)


def _link(source: str, target: str) -> None:
    Path(target).hardlink_to(source)


PACKED = PackedFrontend()
