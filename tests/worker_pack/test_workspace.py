"""Directories of jobs: two processes of one installation, and files on shared storage that a worker of root's wrote."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from backend_pool.worker_pack.host import Dirs
from backend_pool.worker_pack.store import Store
from backend_pool.worker_pack.workspace import Room, Workspace, hand_over

TAG = "a" * 8
SOMEBODY = 54321


def test_a_second_process_leaves_the_first_one_its_scratch(tmp_path: Path) -> None:
    """What a killed one left is swept."""
    hold = "import sys; from backend_pool.worker_pack.workspace import Workspace; from pathlib import Path\n"
    hold += f"w = Workspace(Path({str(tmp_path)!r}), None, 1); w.scratch({TAG!r}, [], []); print('on', flush=True)\n"
    hold += "sys.stdin.read()"
    other = subprocess.Popen([sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert other.stdin is not None and other.stdout is not None
    try:
        assert other.stdout.readline() == b"on\n"
        first = Workspace(tmp_path, None, 1).scratch(TAG, [], [])
        assert len(list(tmp_path.glob(f"scratch/*/{TAG}/output"))) == 2, "one of each"
    finally:
        other.kill()
        other.communicate()
    second = Workspace(tmp_path, None, 1)
    assert list(tmp_path.glob(f"scratch/*/{TAG}")) == [first.scratch], "the killed one's is gone"
    assert second.scratch("b" * 8, [], []).scratch != first.scratch


def test_a_second_process_leaves_the_first_one_its_incoming_files(tmp_path: Path) -> None:
    incoming = Store(tmp_path, 1).begin("0" * 64)
    old = tmp_path / f"{'1' * 64}.part00"
    old.touch()
    os.utime(old, (1, 1))
    Store(tmp_path, 1)
    assert [path.name[:1] for path in tmp_path.iterdir()] == ["0"]
    incoming.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_what_root_wrote_becomes_the_users(tmp_path: Path) -> None:
    """New files and directories; nothing older, nothing behind a link, no second name of a file elsewhere."""
    began = time.time()
    dirs = Dirs(*(str(tmp_path / "home" / kind) for kind in ("input", "output", "temp")))
    secret = tmp_path / "secret"
    secret.mkdir()
    for name in ("key", "linked"):
        (secret / name).write_text("root's")
    for kind in ("input", "output", "temp"):
        Path(dirs.of(kind)).mkdir(parents=True)
        os.chown(dirs.of(kind), SOMEBODY, SOMEBODY)
    output = Path(dirs.output)
    (output / "new" / "deep").mkdir(parents=True)
    (output / "new" / "deep" / "a.png").touch()
    (output / "way").symlink_to(secret)
    (output / "hard").hardlink_to(secret / "linked")
    hand_over(Room(dirs, "user"), began)
    for path in ("new", "new/deep", "new/deep/a.png", "way"):
        assert (output / path).lstat().st_uid == SOMEBODY, path
    assert {path.lstat().st_uid for path in (secret, secret / "key", secret / "linked")} == {0}
    (output / "old.png").touch()
    hand_over(Room(dirs, "user"), time.time() + 60)
    assert (output / "old.png").stat().st_uid == 0
