"""A light session whose disk is a tiny tmpfs, mounted in a namespace of its own; run by `test_full_disk.py`.

`unshare -Urm python -m tests.user_sessions.light.disk_server FOLDER BYTES`
"""

import asyncio
import subprocess
import sys
from pathlib import Path

from tests.user_sessions.light.conftest import spec_in
from user_sessions.light.runtime import LightRuntime
from user_sessions.listener import bind


def main() -> None:
    """Mount, serve, and say so on standard output."""
    folder = Path(sys.argv[1])
    users = folder / "users"
    users.mkdir(mode=0o700)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={sys.argv[2]},mode=700", "tmpfs", users], check=True)
    runtime = LightRuntime(None)
    runtime.warm()
    spec = spec_in(folder)
    asyncio.run(runtime.serve(spec, bind(spec.socket), lambda: print("ready", flush=True)))


if __name__ == "__main__":
    main()
