"""Engines for the pool's tests: two to share, and a factory for tests that break theirs."""

import importlib.util
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.engines import Engine, start_engine

Start = Callable[..., Engine]


@pytest.fixture(scope="session")
def shared_engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Engine]]:
    """Two engines that no test breaks."""
    running = [start_engine(tmp_path_factory.mktemp("engine")) for _ in range(2)]
    yield running
    for engine in running:
        engine.stop()


@pytest.fixture
def urls(shared_engines: list[Engine]) -> list[str]:
    """Addresses of the shared engines."""
    return [engine.url for engine in shared_engines]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start engines with arguments of one's own; they are killed at the end."""
    started: list[Engine] = []

    def begin(*args: str, name: str = "") -> Engine:
        started.append(start_engine(tmp_path / (name or f"engine-{len(started)}"), *args))
        return started[-1]

    yield begin
    for running in started:
        running.kill()


def _postgres_problem() -> str | None:
    tool = shutil.which("pg_config")
    if tool is None:
        return "no PostgreSQL here (pg_config)"
    folder = Path(subprocess.run([tool, "--bindir"], check=True, capture_output=True, text=True).stdout.strip())
    if not (folder / "initdb").exists():
        return f"no PostgreSQL server in {folder}"
    return None if importlib.util.find_spec("psycopg") else "no driver for PostgreSQL (psycopg)"


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a PostgreSQL of our own, on a Unix socket only."""
    problem = _postgres_problem()
    if problem is not None:
        pytest.skip(problem)
    tool = str(shutil.which("pg_config"))
    binaries = subprocess.run([tool, "--bindir"], check=True, capture_output=True, text=True).stdout.strip()
    root = tmp_path_factory.mktemp("postgres")
    as_user: list[str] = []
    if os.geteuid() == 0:  # the server refuses to run as root
        for folder in (root, *root.parents):
            if str(folder).startswith("/tmp/"):
                folder.chmod(0o755)
        shutil.chown(root, "postgres")
        as_user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
    data = root / "data"
    subprocess.run(
        [*as_user, f"{binaries}/initdb", "-D", data, "-U", "t", "-A", "trust"], check=True, capture_output=True
    )
    options = f"-c listen_addresses='' -c unix_socket_directories={root} -c fsync=off"
    control = [*as_user, f"{binaries}/pg_ctl", "-D", str(data), "-w", "-l", str(root / "log")]
    subprocess.run([*control, "-o", options, "start"], check=True, capture_output=True)
    yield f"postgresql+psycopg://t@/postgres?host={root}"
    subprocess.run([*control, "-m", "immediate", "stop"], check=False, capture_output=True)
