"""A PostgreSQL server of the tests' own, on a Unix socket only; it can be stopped, frozen and started again."""

import importlib.util
import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Literal


def missing() -> str | None:
    """Why there can be none here."""
    tool = shutil.which("pg_config")
    if tool is None:
        return "no PostgreSQL here (pg_config)"
    folder = _binaries()
    if not (folder / "initdb").exists():
        return f"no PostgreSQL server in {folder}"
    return None if importlib.util.find_spec("psycopg") else "no driver for PostgreSQL (psycopg)"


class Postgres:
    """A server in `root`, which must be new; `start` first. `url` is the same after every start."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._as_user: list[str] = []
        if os.geteuid() == 0:  # the server refuses to run as root
            for folder in (root, *root.parents):
                if str(folder).startswith("/tmp/"):
                    folder.chmod(0o755)
            shutil.chown(root, "postgres")
            self._as_user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
        self._data = root / "data"
        self._run(_binaries() / "initdb", "-D", self._data, "-U", "t", "-A", "trust")
        self.url = f"postgresql+psycopg://t@/postgres?host={root}"

    def start(self) -> None:
        """Returns once it takes connections."""
        options = f"-c listen_addresses='' -c unix_socket_directories={self._root} -c fsync=off"
        self._control("-o", options, "start")

    def stop(self, mode: Literal["fast", "immediate"] = "fast") -> None:
        """`fast` cuts every connection and writes all down; `immediate` is a crash."""
        if self._pid_file.exists():
            self._control("-m", mode, "stop")

    def signal(self, number: signal.Signals) -> None:
        """To the server and all its processes."""
        os.killpg(int(self._pid_file.read_text().split()[0]), number)

    @property
    def _pid_file(self) -> Path:
        return self._data / "postmaster.pid"

    def _control(self, *args: str) -> None:
        self._run(_binaries() / "pg_ctl", "-D", self._data, "-w", "-l", self._root / "log", *args)

    def _run(self, *command: object) -> None:
        words = [*self._as_user, *map(str, command)]
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _binaries() -> Path:
    found = subprocess.run(["pg_config", "--bindir"], check=True, capture_output=True, text=True)
    return Path(found.stdout.strip())
