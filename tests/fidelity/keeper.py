"""A real ComfyUI and a cluster that has it as its only backend, for `stand_in`.

`python -m tests.fidelity.keeper FOLDER [main.py's flags]` prints the cluster's URL and a user's token, and ends both
when its standard input does.
"""

import sys
from pathlib import Path

from tests.cluster import start_cluster
from tests.real_comfyui import start_real_comfyui


def main(folder: Path, arguments: list[str]) -> None:
    """Serve until nobody holds the other end of standard input."""
    backend = start_real_comfyui(folder / "comfyui", *arguments)
    try:
        with start_cluster(folder, "--engines", "0", "--backend", backend.url) as cluster:
            person = cluster.user("suite")
            print(cluster.url, person.token, flush=True)
            sys.stdin.read()
    finally:
        backend.kill()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
