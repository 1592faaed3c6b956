"""`python -m backend_pool.engine`: serve until SIGTERM or Ctrl-C, which end the process at once with status 0."""

import asyncio
import logging
import os
import signal
import sys
from pathlib import Path
from urllib.parse import quote

from aiohttp import web

from backend_pool.engine.app import make_app
from backend_pool.engine.door import USER, read_secret
from backend_pool.engine.engine import build
from backend_pool.engine.log_ring import Ring
from backend_pool.engine.options import Options, parse
from backend_pool.engine.pack_host import mount
from backend_pool.worker_pack.heartbeat import Heartbeat
from proxy.base import logs


def main() -> None:
    """Run one engine."""
    options = parse()
    os.umask(0o077)  # what it keeps are people's pictures
    logs.configure("info", "text")
    ring = Ring()
    ring.setFormatter(logs.TextFormatter())
    logging.getLogger().addHandler(ring)
    for name in (signal.SIGTERM, signal.SIGINT):
        # Python runs this even while the loop is blocked by a fault. Like a pulled plug, on purpose: a job may run.
        signal.signal(name, lambda _signal, _frame: os._exit(0))
    try:
        asyncio.run(_serve(options))
    except OSError as error:
        sys.exit(f"The engine cannot start: {error}")


async def _serve(options: Options) -> None:
    engine = build(options)
    secret = None if options.secret_file is None else read_secret(options.secret_file)
    pack = None if options.worker_pack is None else mount(engine, options.worker_pack)
    runner = web.AppRunner(make_app(engine, secret, pack), access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, options.host, options.port)
    await site.start()
    engine.worker.start()
    host, port = runner.addresses[0][:2]
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    if options.url_file is not None:
        login = "" if secret is None else f"{USER}:{quote(secret, safe='')}@"
        await asyncio.to_thread(_write_atomically, options.url_file, f"http://{login}{address}")
    if pack is not None:
        Heartbeat(pack.config, pack.beat, pack.learn, lambda: (host, port)).start()
    print(f"Ready: http://{address}", flush=True)  # noqa: T201 - the contract with whoever started us
    await asyncio.Event().wait()


def _write_atomically(path: Path, text: str) -> None:
    partial = path.with_name(path.name + ".part")
    partial.write_text(text)
    partial.replace(path)


if __name__ == "__main__":
    main()
