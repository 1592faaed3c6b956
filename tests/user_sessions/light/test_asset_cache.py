"""The compressed frontend: complete or absent, whoever builds it and whatever the disk does."""

import gzip
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from user_sessions.light import asset_cache


@pytest.fixture
def root(folder: Path) -> Path:
    """Twenty scripts of incompressible and compressible content."""
    root = folder / "web"
    (root / "deep").mkdir(parents=True)
    for number in range(20):
        (root / "deep" / f"{number}.js").write_bytes(bytes([65 + number]) * 5000)
    (root / "noise.js").write_bytes(os.urandom(5000))
    (root / "page.png").write_bytes(bytes(5000))
    return root


def test_copies_decompress_to_their_sources(root: Path, folder: Path) -> None:
    assert asset_cache.build(root, folder / "cache", "v1")
    made = sorted(path.relative_to(folder / "cache/v1").as_posix() for path in (folder / "cache/v1").rglob("*.gz"))
    assert made == sorted(f"deep/{number}.js.gz" for number in range(20))
    for name in made:
        source = root / name.removesuffix(".gz")
        copy = folder / "cache/v1" / name
        assert gzip.decompress(copy.read_bytes()) == source.read_bytes()
        assert copy.stat().st_mtime_ns == source.stat().st_mtime_ns
        assert copy.stat().st_mode & 0o444 == 0o444


def test_builders_at_the_same_time_leave_one_complete_cache(root: Path, folder: Path) -> None:
    start = threading.Barrier(4)
    results: list[bool] = []

    def work() -> None:
        start.wait(10)
        results.append(asset_cache.build(root, folder / "cache", "v1"))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert results == [True] * 4
    assert [path.name for path in (folder / "cache").iterdir()] == ["v1"]
    assert len(list((folder / "cache/v1").rglob("*.gz"))) == 20


def test_a_builder_nobody_wants_any_more_leaves_nothing(root: Path, folder: Path) -> None:
    wishes = iter([True] * 5 + [False])
    assert not asset_cache.build(root, folder / "cache", "v1", lambda: next(wishes))
    assert list((folder / "cache").iterdir()) == []


def test_a_file_system_that_refuses_leaves_nothing(root: Path, folder: Path) -> None:
    (root / "deep" / "big.js").write_bytes(b"".join(b"%d," % (n * n) for n in range(50_000)))
    program = (
        "import resource, sys; from pathlib import Path; from user_sessions.light import asset_cache\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
        "try: asset_cache.build(Path(sys.argv[1]), Path(sys.argv[2]), 'v1')\n"
        "except OSError as error: sys.exit(f'refused {error.errno}')\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program, str(root), str(folder / "cache")],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ran.stderr.startswith("refused"), ran
    assert list((folder / "cache").iterdir()) == []


def test_rests_of_killed_builders_go_by_age(folder: Path) -> None:
    old, young = folder / ".building-old", folder / ".building-young"
    old.mkdir()
    young.mkdir()
    past = time.time() - 2 * asset_cache.STALE_S
    os.utime(old, (past, past))
    asset_cache.remove_stale(folder)
    assert not old.exists()
    assert young.exists()


def test_a_background_build_appears_whole(root: Path, folder: Path) -> None:
    cache = folder / "cache"
    asset_cache.start_build(root, cache, "v1")
    deadline = time.monotonic() + 30
    while not (cache / "v1").is_dir():
        assert time.monotonic() < deadline
        time.sleep(0.02)  # another process' rename: there is no event to wait for
    assert len(list((cache / "v1").rglob("*.gz"))) == 20


def test_names_tell_versions_apart() -> None:
    one = asset_cache.cache_name("1.0", [("a", 1, 2), ("b", 1, 2)])
    assert one == asset_cache.cache_name("1.0", [("b", 1, 2), ("a", 1, 2)])
    assert len({one, asset_cache.cache_name("1.0", [("a", 1, 3)]), asset_cache.cache_name("1.1", [("a", 1, 3)])}) == 3
