"""`comfy-cluster demo`: a server to look at, on this machine only, with three logins that stay the same between starts.

Owns `logins.json` in the demo's data directory. Nothing else in the project reads it.
"""

import json
import os
import socket
from pathlib import Path

from proxy.access import accounts
from proxy.access.passwords import generate, verify_now
from proxy.base.database import Database
from proxy.base.errors import ConfigError
from proxy.base.settings import Settings
from proxy.base.settings_file import load
from proxy.server import listen
from proxy.up import run_server

ADMIN = "admin"
PEOPLE = ("ann", "bob")
PORTS_TRIED = 20


def demo_settings(data_dir: Path, port: int, engines: int, log_level: str, config: Path | None) -> Settings:
    """The settings of a demo: loopback only, whatever the environment says."""
    return load(
        config,
        data_dir=data_dir,
        host="127.0.0.1",
        port=port,
        engines=engines,
        log_level=log_level,
        admin_name=ADMIN,
        admin_password=logins(data_dir)[ADMIN],
    )


def run_demo(settings: Settings, db: Database) -> None:
    """Serve until Ctrl-C; on the first start the two users are created."""
    known = logins(settings.data_dir)
    for name in PEOPLE:
        if _find(db, name) is None:
            accounts.add_now(db, name, known[name])
    rows = [f"    {name:<6} {_shown(db, name, known[name])}" for name in (ADMIN, *PEOPLE)]

    def greeting(url: str) -> str:
        return "\n".join(
            [
                "",
                f"  Open {url} in two browser windows (one of them private)",
                "  and sign in as two people:",
                "",
                f"{rows[0]}    administrator, {url}/cluster/admin/",
                *rows[1:],
                "",
                "  Press Run in both. Embedded engines draw the pictures: no GPU and no model is used.",
                "  To see a queue, set KSampler's `control after generate` to randomize and press Run several times.",
                f"  Ctrl-C stops everything. Data and passwords stay in {settings.data_dir}/.",
            ]
        )

    run_server(settings, db, listen_near, greeting)


def listen_near(settings: Settings) -> socket.socket:
    """A socket on the wanted port, or on the next free one. Raises ConfigError."""
    for port in range(settings.port, min(settings.port + PORTS_TRIED, 65536)):
        try:
            return listen(settings.model_copy(update={"port": port}))
        except ConfigError as error:
            refused = error
    raise refused


def logins(data_dir: Path) -> dict[str, str]:
    """Names and first passwords, made on the first call. Raises ConfigError."""
    path = data_dir / "logins.json"
    try:
        if not path.exists():
            data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
            with os.fdopen(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
                json.dump({name: generate() for name in (ADMIN, *PEOPLE)}, file, indent=1)
        known = json.loads(path.read_text())
        return {name: str(known[name]) for name in (ADMIN, *PEOPLE)}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"The demo's directory {data_dir} cannot be used: {error}. Remove it, or choose another with --data-dir."
        ) from error


def _shown(db: Database, name: str, password: str) -> str:
    """The password if it still is the one, for nobody wants to be shown a wrong one."""
    user = _find(db, name)
    same = user is None or verify_now(password, user.password_hash)
    return password if same else "(changed since the first start)"


def _find(db: Database, name: str) -> accounts.User | None:
    return db.read_now(lambda session: accounts.find(session, name))
