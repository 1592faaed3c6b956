"""The life of `comfy-cluster up`: it ends as asked, leaves no process, and after a kill finds what still runs."""

import contextlib
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster import STOP_TIMEOUT_S, clean, environment, processes_of, start_cluster

LIVE_ON = ("user_sessions.host", "user_sessions.zygote", "backend_pool.engine")


def pids(data_dir: Path, word: str) -> set[int]:
    """Processes of that data directory whose command holds `word`."""
    return {pid for pid, command in processes_of(data_dir).items() if word in command}


async def test_ends_when_asked_and_leaves_nothing(tmp_path: Path) -> None:
    """By SIGTERM; the tests below end theirs by the other two signals."""
    with start_cluster(tmp_path, "--engines", "2", fresh=True) as cluster:
        ann = cluster.user("ann")
        async with cluster.client(ann) as client:
            assert (await client.get("/api/settings")).status_code == 200  # her session runs
        assert len(pids(cluster.data_dir, "backend_pool.engine")) == 2
        assert pids(cluster.data_dir, "user_sessions.zygote")
        assert cluster.stop(signal.SIGTERM) == 0
        assert cluster.processes() == {}
        assert "Traceback" not in cluster.log()


async def test_a_killed_proxy_is_followed_by_one_that_adopts(tmp_path: Path) -> None:
    first = start_cluster(tmp_path, "--engines", "2", fresh=True)
    try:
        ann = first.user("ann")
        async with first.client(ann) as client:
            await client.post("/api/settings/Comfy.Test", json="kept")
            started = (await client.get("/cluster/api/v1/session")).json()
        before = {pid for word in LIVE_ON for pid in pids(first.data_dir, word)}
        first.kill()
        assert before <= set(first.processes())
        with start_cluster(tmp_path, "--engines", "2", fresh=True) as second:
            async with second.client(ann) as client:
                assert (await client.get("/api/settings/Comfy.Test")).json() == "kept"
                assert (await client.get("/cluster/api/v1/session")).json() == started
            assert before <= set(second.processes())
            assert second.stop(signal.SIGINT) == 0
            assert second.processes() == {}
            assert "Traceback" not in second.log()
    finally:
        first.clean()


async def test_a_session_host_of_its_own_outlives_the_server(tmp_path: Path) -> None:
    with (
        started("session-host", tmp_path / "data", "session host ready") as host,
        start_cluster(tmp_path, "--engines", "1", fresh=True) as cluster,
    ):
        ann = cluster.user("ann")
        async with cluster.client(ann) as client:
            assert (await client.get("/api/settings")).status_code == 200
        assert cluster.stop(signal.SIGHUP) == 0
        assert "Traceback" not in cluster.log()
        assert host.poll() is None
        assert pids(cluster.data_dir, "user_sessions.host") == {host.pid}
        assert not pids(cluster.data_dir, "backend_pool.engine")
        host.terminate()
        host.communicate(timeout=STOP_TIMEOUT_S)
        assert host.returncode == 0
        assert cluster.processes() == {}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_during_the_start_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    with started("up", tmp_path / "data", "session host started") as process:
        process.send_signal(number)
        printed, logged = process.communicate(timeout=STOP_TIMEOUT_S)
        assert process.returncode == 0, logged
        assert "Stopped before it was ready." in printed
        assert "Ready:" not in printed
        assert "Traceback" not in logged
        assert processes_of(tmp_path / "data") == {}


@contextlib.contextmanager
def started(verb: str, data_dir: Path, logged: str) -> Iterator[subprocess.Popen[str]]:
    """`comfy-cluster <verb>` that has just logged `logged`; whatever it started is gone afterwards."""
    command = [sys.executable, "-m", "proxy", verb, "--data-dir", str(data_dir)]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment({"COMFY_CLUSTER_PORT": "0"}),
    ) as process:
        try:
            assert process.stderr is not None
            assert any(logged in line for line in process.stderr)
            yield process
        finally:
            process.kill()
            clean(data_dir)
