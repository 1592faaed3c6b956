"""Embedded engines as managed instances: each with a directory and a secret of its own, on a free port."""

import os
import secrets
import sys
from pathlib import Path

from backend_pool.managed.recipe import Launch
from proxy.base.processes import Daemon
from proxy.base.settings import Settings


class EngineRecipe:
    """Engines of one data directory. Their URLs hold their secrets, and are told by themselves once they serve."""

    kind = "engine"

    def __init__(self, settings: Settings, run: Path) -> None:
        self.arguments = tuple(settings.engine_args)
        self._data_dir = settings.data_dir
        self._run = run

    def prepare(self, name: str) -> Launch:
        """A fresh secret; the address of an earlier start is forgotten."""
        base = self._base(name)
        base.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._address(name).unlink(missing_ok=True)
        _write_secret(self._secret(name))
        command = [sys.executable, "-m", "backend_pool.engine", "--host", "127.0.0.1", "--port", "0"]
        command += ["--base-dir", str(base), "--name", name, "--url-file", str(self._address(name))]
        return Launch([*command, "--secret-file", str(self._secret(name)), *self.arguments])

    def marker(self, name: str) -> tuple[str, ...]:
        """Its module and its directory."""
        return "backend_pool.engine", str(self._address(name))

    def address(self, name: str, _daemon: Daemon) -> str | None:
        """What it has written once it served."""
        try:
            return self._address(name).read_text().strip() or None
        except OSError:
            return None

    def traceable(self, name: str) -> bool:
        """Its secret is made before it starts."""
        return self._secret(name).exists()

    def planned(self, _name: str) -> str | None:
        """The kernel picks its port."""
        return None

    def stale(self, _name: str) -> bool:
        """An engine of an earlier start does as it is."""
        return False

    def worker(self, _name: str) -> str | None:
        """Engines of a server are stock ones."""
        return None

    def forget(self, name: str) -> None:
        """Remove secret and address."""
        self._address(name).unlink(missing_ok=True)
        self._secret(name).unlink(missing_ok=True)

    def _base(self, name: str) -> Path:
        return self._data_dir / "engines" / name.removeprefix("engine-")

    def _address(self, name: str) -> Path:
        return self._run / f"{name}.url"

    def _secret(self, name: str) -> Path:
        return self._run / f"{name}.secret"


def _write_secret(path: Path) -> None:
    """What the engine asks of its clients: accounts of this machine reach its port too, and so do sessions."""
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "w") as file:
        file.write(secrets.token_urlsafe(32))
