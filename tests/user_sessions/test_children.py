"""A server without a session host: the same sessions as child processes, chosen by a setting."""

import asyncio
import json
import os
import signal
from pathlib import Path

import pytest

from proxy.base.errors import ConfigError
from proxy.doctor.checks import examine
from tests.cluster import Cluster, start_cluster
from tests.system.inside import socket_of
from tests.system.people import Someone
from tests.user_sessions.studio import PROBE, gone, make_settings, make_spec
from user_sessions.children import Children
from user_sessions.sandbox import python_paths

CHILD = {"COMFY_CLUSTER_SPAWNER": "child"}


def pid_of(someone: Someone) -> int:
    """The process of the user's session, out of its record."""
    records = socket_of(someone.cluster, someone.person.slug).parent.parent / "children"
    found = [json.loads(path.read_text()) for path in records.glob("*.json")]
    (record,) = [record for record in found if record["user"] == someone.person.slug]
    return int(record["pid"])


async def begin(tmp_path: Path) -> Cluster:
    """A server with child sessions on that directory."""
    return await asyncio.to_thread(start_cluster, tmp_path, "--engines", "0", env=CHILD)


async def test_a_server_runs_on_child_sessions(tmp_path: Path) -> None:
    with await begin(tmp_path) as cluster:
        person = await asyncio.to_thread(cluster.user, "ann")
        ann = Someone(cluster, person)
        assert (await ann.comfy.post("/settings/Mark", "kept")).status == 200
        first = pid_of(ann)
        assert "user_sessions.child" in Path(f"/proc/{first}/cmdline").read_text()
        assert not [command for command in cluster.processes().values() if "user_sessions.host" in command]
        os.kill(first, signal.SIGKILL)
        await gone(first)
        answer = await ann.comfy.get("/settings/Mark")
        assert (answer.status, answer.json()) == (200, "kept")
        second = pid_of(ann)
        assert second != first
        cluster.kill()
        await ann.comfy.close()
        with await begin(tmp_path) as after:
            ann = Someone(after, person)
            assert (await ann.comfy.get("/settings/Mark")).json() == "kept"
            assert pid_of(ann) == second  # found again, not started again
            await ann.comfy.close()
        await gone(second)
        with await begin(tmp_path) as last:
            ann = Someone(last, person)
            assert (await ann.comfy.get("/cluster/api/v1/session")).json()["state"] == "stopped"
            await ann.comfy.close()


async def test_a_clean_stop_ends_them_all(place: Path) -> None:
    children = Children(make_settings(place), PROBE)
    await children.ensure()
    spawner = children.spawner()
    specs = [make_spec(make_settings(place), name) for name in ("ann", "bob")]
    polls = await asyncio.gather(*(spawner.start(spec) for spec in specs))
    assert await children.stop()
    for poll in polls:
        assert poll.pid is not None
        await gone(poll.pid)
    assert await spawner.listing() == []


async def test_data_among_readable_files_is_refused(place: Path) -> None:
    data = python_paths()[0] / "data"
    with pytest.raises(ConfigError, match="which sessions may read"):
        await Children(make_settings(place, data_dir=data, run_dir=place / "run"), PROBE).ensure()
    assert not data.exists()


def test_doctor_says_that_sessions_are_not_forked(place: Path) -> None:
    for spawner, notes in (("host", 0), ("child", 1)):
        said = [finding.detail for finding in examine(make_settings(place, spawner=spawner))]
        assert len([detail for detail in said if "spawner is child" in detail]) == notes
