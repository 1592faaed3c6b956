"""Disks and databases that fail for a while: the job says so or waits, the queue goes on, nothing is lost."""

import asyncio
import json
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from backend_pool.job_state import JobState
from tests.backend_pool.conftest import Start
from tests.backend_pool.graphs import sampled, saved
from tests.backend_pool.rig import engine_get, rig


def namespaces() -> bool:
    """Whether a mount of our own is possible here."""
    tool = shutil.which("unshare")
    return tool is not None and subprocess.run([tool, "-Urm", "true"], check=False, capture_output=True).returncode == 0


def on_a_small_disk(root: Path, url: str, what: str) -> Any:
    """What `full_disk` prints."""
    command = ["unshare", "-Urm", sys.executable, "-m", "tests.backend_pool.full_disk", str(root), url, what]
    ran = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


@pytest.mark.skipif(not namespaces(), reason="needs `unshare -Urm` to mount a small disk")
def test_a_full_database_refuses_jobs_and_loses_none_that_it_took(tmp_path: Path, start: Start) -> None:
    told = on_a_small_disk(tmp_path / "root", start("--step-ms", "20").url, "database")
    assert "The disk that holds the database is full" in told["refused"] and not told["told_early"]
    assert told["states"] == [["succeeded", 1], ["succeeded", 1]]
    assert told["files"] == ["output/ComfyUI_00001_.png", "output/ComfyUI_00002_.png"]


@pytest.mark.skipif(not namespaces(), reason="needs `unshare -Urm` to mount a small disk")
def test_a_full_disk_fails_the_job_and_the_queue_goes_on(tmp_path: Path, urls: list[str]) -> None:
    """A message that says what to do, nothing half-written, the next jobs run."""
    full, preview, after = on_a_small_disk(tmp_path, urls[0], "output")
    assert full["state"] == "failed" and full["attempt"] == 1 and full["files"] == ["output/ballast.bin"]
    kind, error = full["last"]
    assert kind == "execution_error" and error["exception_type"] == "DiskFull"
    assert "could not be stored" in error["exception_message"] and "Free some space" in error["exception_message"]
    assert preview["state"] == "succeeded" and after["state"] == "succeeded"
    assert "output/ComfyUI_00001_.png" in after["files"]


async def test_a_locked_database_loses_nothing(tmp_path: Path, start: Start) -> None:
    """Somebody holds the write lock for longer than SQLite waits, from the first step to after the last."""
    engine = start()
    async with rig(tmp_path, engine.url) as r:
        with r.db.writer.connect() as connection:
            connection.exec_driver_sql("PRAGMA busy_timeout=50")
            connection.rollback()
        prompt_id = await r.submit(sampled(steps=30))
        await r.heard.until(prompt_id, "progress")
        other = sqlite3.connect(tmp_path / "cluster.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        async with asyncio.timeout(60):
            while await engine_get(engine.url, "/history") == {}:
                await asyncio.sleep(0.05)
        await asyncio.sleep(0.5)  # several refused writes later
        assert "execution_success" not in r.heard.kinds(prompt_id)
        other.execute("ROLLBACK")
        other.close()
        job, _ = await r.final(prompt_id)
        assert job.state is JobState.SUCCEEDED and job.attempt == 1
        assert r.files() == ["output/ComfyUI_00001_.png"]
        assert (await r.run(saved()))[0].state is JobState.SUCCEEDED
