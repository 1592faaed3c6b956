"""Control groups: whose part of the tree is ours, what is written where, and that what a group holds ends with it.

Kernels of tests seldom have controllers to spare, so what is written is looked at in a plain directory.
"""

import os
import subprocess
from pathlib import Path

import pytest

from tests.user_sessions.studio import ask, gone, make_spec, open_studio
from user_sessions import cgroup
from user_sessions.cgroup import MAIN, Limits

BASE, WHY_NONE = cgroup.find()
real = pytest.mark.skipif(BASE is None, reason=f"NO CONTROL GROUPS OF OUR OWN HERE: {WHY_NONE}")


def make_tree(place: Path, own: str = "/service", *, root: str = "/") -> tuple[Path, Path, Path]:
    """A plain directory in place of a mounted tree, and the kernel's two tables about it."""
    top = place / "tree"
    (top / own.strip("/")).mkdir(parents=True)
    mounts, mine = place / "mountinfo", place / "cgroup"
    mounts.write_text(f"30 23 0:26 {root} {top} rw,nosuid shared:4 - cgroup2 cgroup2 rw\n")
    mine.write_text(f"1:name=systemd:/x\n0::{own}\n")
    for group in (top, *(path for path in top.rglob("*") if path.is_dir())):
        (group / "cgroup.procs").write_text("")
    return top, mounts, mine


def test_a_container_may_arrange_its_own_tree(tmp_path: Path) -> None:
    top, mounts, mine = make_tree(tmp_path, "/")
    assert cgroup.find(mounts, mine) == (top, "")
    mine.write_text(f"0::/{MAIN}\n")  # where we moved at an earlier start
    assert cgroup.find(mounts, mine) == (top, "")


def test_a_part_of_the_hosts_tree_is_found_below_its_mount(tmp_path: Path) -> None:
    top, mounts, mine = make_tree(tmp_path, "/", root="/docker/abc")
    mine.write_text("0::/docker/abc\n")
    assert cgroup.find(mounts, mine) == (top, "")


def test_a_delegated_group_is_used_and_another_is_not(tmp_path: Path) -> None:
    top, mounts, mine = make_tree(tmp_path, "/system.slice/service/comfy-cluster-main")
    service = top / "system.slice" / "service"
    found, reason = cgroup.find(mounts, mine)
    assert found is None and "Delegate=yes" in reason
    try:
        os.setxattr(service, "user.delegate", b"1")
    except OSError:
        pytest.skip("THIS FILE SYSTEM KEEPS NO ATTRIBUTES")
    assert cgroup.find(mounts, mine) == (service, "")


def test_without_version_2_there_is_none(tmp_path: Path) -> None:
    (tmp_path / "mountinfo").write_text("30 23 0:26 / /sys/fs/cgroup rw - cgroup cgroup rw,memory\n")
    found, reason = cgroup.find(tmp_path / "mountinfo", tmp_path / "none")
    assert found is None and "version 2" in reason


def test_limits_are_written_and_missing_controllers_left_out(tmp_path: Path) -> None:
    group = tmp_path / "one"
    group.mkdir()
    for name in ("memory.max", "memory.swap.max", "pids.max", "cpu.max"):
        (group / name).write_text("")
    cgroup.enter(tmp_path, "one", Limits(memory_mb=10, processes=20, cpu_percent=150))
    written = {path.name: path.read_text() for path in group.iterdir()}
    assert written == {
        "memory.max": "10485760",
        "memory.swap.max": "0",
        "pids.max": "20",
        "cpu.max": "150000 100000",
        "cgroup.procs": "0",
    }
    cgroup.enter(tmp_path, "one", Limits(10, 20, 0))
    assert (group / "cpu.max").read_text() == "max 100000"


@real
def test_processes_that_are_in_the_way_move_aside(tmp_path: Path) -> None:
    """The rule of the kernel that only groups without processes of their own hand controllers down."""
    assert BASE is not None
    service = BASE / f"test-{os.getpid()}"
    service.mkdir()
    try:
        with subprocess.Popen(["sleep", "60"]) as child:
            (service / "cgroup.procs").write_text(str(child.pid))
            held = cgroup.prepare(service, tmp_path)
            assert (service / MAIN / "cgroup.procs").read_text().split() == [str(child.pid)]
            with pytest.raises(OSError, match="another session host"):
                cgroup.prepare(service, tmp_path)
            child.kill()
        held.remove()
        assert not held.path.exists()
    finally:
        for group in (service / MAIN, service):
            cgroup.end(group.parent, group.name)


@real
async def test_a_session_and_all_it_started_live_and_end_in_one_group(place: Path) -> None:
    assert BASE is not None
    async with open_studio(place, session_cgroup="auto") as studio:
        specs = [make_spec(studio.settings, name) for name in ("ann", "ben")]
        daemons = []
        for spec in specs:
            await studio.spawner.start(spec)
            daemons.append((await ask(spec, "daemon"))["ok"])
            lines = Path(f"/proc/{daemons[-1]}/cgroup").read_text().splitlines()
            assert any(line.startswith("0::") and line.endswith(f"/{spec.session_id}") for line in lines)
        ann, ben = (next(BASE.glob(f"**/{spec.session_id}")) for spec in specs)
        await studio.spawner.stop(specs[0].session_id)
        await gone(daemons[0])
        assert not ann.exists() and ben.exists()
    await gone(daemons[1])
    assert not ben.parent.exists()
