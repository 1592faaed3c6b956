"""A small zygote: warms the runtime, forks sessions, prints their sockets, ends them when its standard input ends.

`python -m tests.user_sessions.light.fork_server FOLDER COUNT [CACHE]`
"""

import asyncio
import gc
import os
import signal
import sys
from pathlib import Path

from tests.user_sessions.light.conftest import spec_in
from user_sessions.light.runtime import LightRuntime
from user_sessions.listener import bind


def main() -> None:
    """Fork, wait, stop the children."""
    folder = Path(sys.argv[1])
    runtime = LightRuntime(Path(sys.argv[3]) if len(sys.argv) > 3 else None)
    runtime.warm()
    gc.collect()
    gc.freeze()  # as a zygote does: a collection in a child must not touch, and so copy, what all share
    pids: list[int] = []
    sockets: list[str] = []
    for number in range(int(sys.argv[2])):
        home = folder / str(number)
        home.mkdir()
        spec = spec_in(home)
        sockets.append(str(spec.socket))
        pid = os.fork()
        if pid == 0:
            asyncio.run(runtime.serve(spec, bind(spec.socket), lambda: None))
            os._exit(0)
        pids.append(pid)
    print(*sockets, flush=True)
    sys.stdin.read()
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


if __name__ == "__main__":
    main()
