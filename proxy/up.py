"""One server from its settings to its end, for the verbs `up` and `demo`: hold the directory, listen, serve, stop."""

import asyncio
import gc
import socket
import sys
from collections.abc import Callable

from proxy.access.accounts import ensure_admin
from proxy.app import build
from proxy.base.database import Database
from proxy.base.settings import Settings
from proxy.data_dir import hold
from proxy.server import listen, serve

Greeting = Callable[[str], str]
"""From the server's URL to what is printed below `Ready:`."""


def run_server(
    settings: Settings,
    db: Database,
    listening: Callable[[Settings], socket.socket] = listen,
    greeting: Greeting | None = None,
) -> None:
    """Serve until SIGTERM or Ctrl-C. Raises ConfigError when the directory or the port is taken."""
    with hold(settings.data_dir), listening(settings) as bound:
        password = ensure_admin(db, settings)
        if password is not None:
            _say(f"Administrator: {settings.admin_name}   password: {password}   (shown once; change it)")

        def ready(url: str) -> None:
            # What was imported stays to the end: each full collection looked through it for a tenth of a second.
            gc.collect()
            gc.freeze()
            _say(f"Ready: {url}")
            if greeting is not None:
                _say(greeting(url))

        async def run() -> None:
            await serve(build(settings, db), bound, ready)

        try:
            asyncio.run(run())
        except asyncio.CancelledError:
            _say("Stopped before it was ready.")


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
