"""Compressed copies of the frontend's files, made once per frontend version in a process of their own.

`python -m user_sessions.light.asset_cache ROOT CACHE NAME` fills a hidden folder and renames it to `CACHE/NAME`, so
what has that name is complete; of two builders the later one throws its work away. A full disk leaves nothing behind:
sessions then serve the plain files. The source's time stamp goes onto each copy, so the ETags of two hosts agree.
"""

import argparse
import gzip
import hashlib
import importlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from proxy.base.processes import Daemon, start_time

COMPRESSIBLE = {".js", ".css", ".html", ".svg", ".json", ".txt", ".ttf", ".eot", ".ico", ".xml", ".wasm"}
"""Source maps stay as they are: twice the size of all the rest, and only developers' tools fetch them."""

SMALLEST_BYTES = 860
BUILDING = ".building-"
STALE_S = 3600.0
START_TIMEOUT_S = 20.0

Encoder = Callable[[bytes], bytes]


def encoders() -> dict[str, Encoder]:
    """By file suffix; brotli only where its library happens to be installed."""
    found: dict[str, Encoder] = {".gz": lambda data: gzip.compress(data, 9, mtime=0)}
    try:
        brotli = importlib.import_module("brotli")
    except ImportError:
        return found
    return {".br": lambda data: bytes(brotli.compress(data, quality=9)), **found}


def compressible(name: str, size: int) -> bool:
    """Whether the cache holds copies of such a file."""
    return size >= SMALLEST_BYTES and os.path.splitext(name)[1] in COMPRESSIBLE  # noqa: PTH122 - called 1700 times


def cache_name(version: str, files: Iterable[tuple[str, int, int]]) -> str:
    """Folder of one set of files, given as (relative name, size, mtime_ns)."""
    digest = hashlib.sha256(repr(sorted(files)).encode()).hexdigest()[:12]
    return f"{version}-{digest}"


def build(root: Path, cache: Path, name: str, wanted: Callable[[], bool] = lambda: True) -> bool:
    """Make `cache/name` unless it is there; blocking. False when `wanted` said no more. Raises OSError."""
    target = cache / name
    if target.is_dir():
        return True
    cache.mkdir(parents=True, exist_ok=True)
    remove_stale(cache)
    work = Path(tempfile.mkdtemp(prefix=BUILDING, dir=cache))
    try:
        work.chmod(0o755)  # sessions may run under other user ids
        for source in sorted(root.rglob("*")):
            if not wanted():
                return False
            if source.is_file() and compressible(source.name, source.stat().st_size):
                _compress(source, work / source.relative_to(root))
        try:
            work.rename(target)
        except OSError:
            if not target.is_dir():  # another builder was faster
                raise
        return True
    finally:
        shutil.rmtree(work, ignore_errors=True)


def start_build(root: Path, cache: Path, name: str, program: Sequence[str] = (sys.executable, "-m")) -> None:
    """Build in the background; returns once that process lives by itself. Raises OSError or SubprocessError.

    It ends early when the calling process ends, and is no child of it: a zygote reaps sessions, nothing else.
    """
    command = [*program, __name__, str(root), str(cache), name, "--for-pid", str(os.getpid())]
    subprocess.run(command, check=True, timeout=START_TIMEOUT_S, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


def remove_stale(cache: Path) -> None:
    """Folders of builders that were killed."""
    for path in cache.glob(f"{BUILDING}*"):
        try:
            old = path.stat().st_mtime < time.time() - STALE_S
        except FileNotFoundError:
            continue
        if old:
            shutil.rmtree(path, ignore_errors=True)


def _compress(source: Path, target: Path) -> None:
    data = source.read_bytes()
    stat = source.stat()
    target.parent.mkdir(parents=True, exist_ok=True)
    target.parent.chmod(0o755)
    for suffix, encode in encoders().items():
        packed = encode(data)
        if len(packed) >= len(data):
            continue
        copy = target.with_name(target.name + suffix)
        copy.write_bytes(packed)
        copy.chmod(0o644)
        os.utime(copy, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def main() -> int:
    """Detach and build."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=Path)
    parser.add_argument("cache", type=Path)
    parser.add_argument("name")
    parser.add_argument("--for-pid", type=int, required=True, help="stop when this process ends")
    given = parser.parse_args()
    owner = Daemon(given.for_pid, start_time(given.for_pid) or 0)
    if os.fork():
        return 0
    os.setsid()
    os.nice(10)
    try:
        build(given.root, given.cache, given.name, owner.alive)
    except OSError as error:
        sys.stderr.write(f"compressed frontend files could not be stored, plain ones are served: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
