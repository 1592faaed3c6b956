"""`comfy-cluster doctor`: what this machine offers and what stands in the way, one line each. Changes nothing.

Works beside a running server and on a machine where nothing has been started yet. What has to be asked over a network
is in `network.py`.
"""

import asyncio
import os
import platform
import resource
import shutil
import sqlite3
import sys
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from proxy.base.errors import ClusterError
from proxy.base.settings import ENV_PREFIX, Settings
from proxy.doctor.finding import Finding, bad, note
from proxy.doctor.host import SeenHost, see_host
from proxy.doctor.managed import managed
from proxy.doctor.network import ask
from proxy.doctor.runtime import look_at_runtime
from proxy.doctor.sandbox import sandbox
from user_sessions.run_dir import fits

GIB = 1 << 30
MIB = 1 << 20
DISK_BAD = 256 * MIB
DISK_LOW = 5 * GIB
FILES_LOW = 4096
SQLITE_OLDEST = (3, 35)
YEAR_BUILT = 2025
NETWORK_FILE_SYSTEMS = {"nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs", "ceph", "glusterfs", "lustre"}
FRONTEND = "comfyui_frontend_package"
FRONTEND_TESTED = (1, 58)
OTHER_VARIABLES = {"TOKEN"}
"""Variables of ours that are no settings: the relay's token."""

Check = Callable[[Settings], Iterator[Finding]]


def examine(settings: Settings, config: Path | None = None) -> list[Finding]:
    """Every finding; never raises."""

    about_host, host = asyncio.run(see_host(settings))

    def about_settings(settings: Settings) -> Iterator[Finding]:
        yield from _settings(settings, config)

    def confinement(settings: Settings) -> Iterator[Finding]:
        yield from sandbox(settings, host)

    def sessions(settings: Settings) -> Iterator[Finding]:
        yield from _sessions(settings, host)

    checks: list[Check] = [
        about_settings,
        _python,
        _data_dir,
        _database,
        confinement,
        sessions,
        managed,
        _frontend,
        _machine,
    ]
    findings = [finding for check in checks for finding in _tried(check, settings)]
    return findings + about_host + asyncio.run(ask(settings, host))


def _tried(check: Check, settings: Settings) -> list[Finding]:
    found: list[Finding] = []
    try:
        found.extend(check(settings))
    except (ClusterError, OSError, ValueError, sqlite3.Error) as error:
        found.append(bad(check.__name__.strip("_").replace("_", " "), f"could not be looked at: {error}"))
    return found


def _settings(settings: Settings, config: Path | None) -> Iterator[Finding]:
    changed = [name for name, value in settings if value != Settings.model_fields[name].default]
    source = f"{config}, environment, flags" if config else "no settings file; environment and flags"
    yield Finding("settings", f"{source}; changed: {', '.join(changed) or 'none'}")
    given = {name.removeprefix(ENV_PREFIX) for name in os.environ if name.upper().startswith(ENV_PREFIX)}
    unknown = {name for name in given if name.lower() not in Settings.model_fields} - OTHER_VARIABLES
    for name in sorted(unknown):
        yield bad("settings", f"{ENV_PREFIX}{name} is no setting: see docs/settings.md for the names")


def _python(_settings: Settings) -> Iterator[Finding]:
    yield Finding("python", f"{platform.python_version()}, {sys.executable}")


def _data_dir(settings: Settings) -> Iterator[Finding]:
    path = settings.data_dir.absolute()
    there = next(folder for folder in (path, *path.parents) if folder.exists())
    try:
        with tempfile.TemporaryFile(dir=there) as probe:
            probe.write(b"x")
    except OSError as error:
        yield bad(
            "data directory",
            f"{there} cannot be written ({error.strerror}): choose another --data-dir, or change its owner",
        )
        return
    if there == path and path.stat().st_mode & 0o077 and (path / "cluster.db").exists():
        yield note("data directory", f"{path} is open to other accounts of this machine: chmod 700 {path}")
    free = shutil.disk_usage(there).free
    space = f"{free / GIB:.1f} GiB free"
    if free < DISK_BAD:
        yield bad("data directory", f"{path}, {space}: free some space, jobs fail without")
    elif free < DISK_LOW:
        yield note("data directory", f"{path}, {space}: pictures will fill that soon")
    else:
        yield Finding("data directory", f"{path}, {space}" + ("" if there == path else ", will be made"))


def _database(settings: Settings) -> Iterator[Finding]:
    if not settings.database.startswith("sqlite"):
        yield Finding("database", "PostgreSQL, see the line of the schema")
        return
    path = Path(settings.database.removeprefix("sqlite:///"))
    version = sqlite3.sqlite_version
    if tuple(map(int, version.split(".")[:2])) < SQLITE_OLDEST:
        yield bad("database", f"SQLite {version} is too old: install a Python with SQLite 3.35 or newer")
        return
    kind = _file_system(path.parent)
    if kind in NETWORK_FILE_SYSTEMS:
        yield bad(
            "database",
            f"{path} is on {kind}, where SQLite's log is not safe: use a local disk, or PostgreSQL (database_url)",
        )
        return
    if not path.exists():
        yield Finding("database", f"SQLite {version}, {path} will be made")
        return
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=5)
    try:
        mode = connection.execute("PRAGMA journal_mode").fetchone()[0]
        damage = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    finally:
        connection.close()
    if damage != "ok":
        yield bad("database", f"{path} is damaged ({damage}): restore a copy")
    else:
        yield Finding("database", f"SQLite {version}, journal {mode}, {path.stat().st_size / MIB:.1f} MiB")


def _sessions(settings: Settings, host: SeenHost | None) -> Iterator[Finding]:
    if not hasattr(os, "fork") or not sys.platform.startswith("linux"):
        yield bad("sessions", f"{sys.platform} cannot fork sessions: use Linux, WSL2 or a container")
    if settings.spawner == "child":
        yield note("sessions", "spawner is child: each session imports everything itself, slow and large")
    if settings.run_dir is not None and not fits(settings.run_dir.absolute()):
        yield bad("sessions", f"run_dir {settings.run_dir} is too long for Unix sockets: choose a shorter one")
    yield from look_at_runtime(settings, host)


def _frontend(_settings: Settings) -> Iterator[Finding]:
    spec = find_spec(FRONTEND)
    if spec is None or spec.origin is None or not (Path(spec.origin).parent / "static" / "index.html").is_file():
        yield bad("frontend", "comfyui-frontend-package is missing or incomplete: install it again with pip")
        return
    version = metadata.version(FRONTEND)
    if tuple(int(part) for part in version.split(".")[:2] if part.isdigit()) < FRONTEND_TESTED:
        yield note("frontend", f"comfyui-frontend-package {version} is older than the oldest tested one, 1.58")
    else:
        yield Finding("frontend", f"comfyui-frontend-package {version}")


def _machine(_settings: Settings) -> Iterator[Finding]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < FILES_LOW:
        yield note("open files", f"at most {soft}: raise it with ulimit -n {FILES_LOW} (hard limit {hard})")
    else:
        yield Finding("open files", f"at most {soft}")
    now = datetime.now(UTC)
    if now.year < YEAR_BUILT:
        yield bad("clock", f"it says {now:%Y-%m-%d %H:%M} UTC: set it, logins and tokens depend on it")
    else:
        yield Finding("clock", f"{now:%Y-%m-%d %H:%M:%S} UTC")


def _file_system(path: Path) -> str:
    """The type of the file system that holds `path`: the longest mount point above it."""
    there = str(next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.exists()).resolve())
    best, kind = "", "unknown"
    for line in Path("/proc/mounts").read_text().splitlines():
        _, mount, found, *_ = line.split(" ")
        below = there == mount or there.startswith(mount.rstrip("/") + "/")
        if below and len(mount) >= len(best):
            best, kind = mount, found
    return kind
