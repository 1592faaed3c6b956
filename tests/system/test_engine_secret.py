"""The engines of a server: they work for it, for nobody else of the machine, and their secrets are shown nowhere."""

import asyncio
import subprocess
import sys
from pathlib import Path

import aiohttp
from yarl import URL

from tests.cluster import STOP_TIMEOUT_S, Cluster, environment
from tests.contract import graphs
from tests.system.conftest import Newcomer
from tests.system.inside import engine_urls
from tests.system.people import Someone


async def test_only_the_server_reaches_its_engines(cluster: Cluster, ann: Someone) -> None:
    job = await ann.job(await ann.runs(graphs.saved(7)))
    assert job["status"] == "completed"
    urls = engine_urls(cluster)
    assert len({URL(url).password for url in urls}) == len(urls) > 1
    async with aiohttp.ClientSession(trust_env=False) as stranger:
        for url in urls:
            bare = str(URL(url).with_user(None)).rstrip("/")
            for path in ("/history", "/queue", "/view?filename=a.png", "/ws"):
                async with stranger.get(bare + path) as response:
                    assert response.status == 401


async def test_secrets_of_engines_are_shown_nowhere(cluster: Cluster, newcomer: Newcomer) -> None:
    root = await newcomer(admin=True)
    async with cluster.client(root.person) as http:
        answers = [await http.get("/cluster/api/v1/admin/backends"), await http.get("/cluster/admin/")]
    shown = [cluster.log(), *cluster.processes().values()]
    for answer in answers:
        assert answer.status_code == 200 and "engine-1" in answer.text
        shown.append(answer.text)
    for verb in (("backend", "list"), ("doctor",)):
        done = await asyncio.to_thread(run, "--data-dir", str(cluster.data_dir), *verb)
        assert "engine-1" in done.stdout, done.stderr
        shown += [done.stdout, done.stderr]
    shown += [path.read_text() for path in (cluster.data_dir / "logs").rglob("*.log")]
    secrets = [str(URL(url).password) for url in engine_urls(cluster)]
    assert [text for text in shown if any(secret in text for secret in secrets)] == []


async def test_what_engines_hold_is_closed_to_other_accounts(cluster: Cluster, ann: Someone) -> None:
    await ann.runs(graphs.saved(8))
    engines = cluster.data_dir / "engines"
    made = [cluster.data_dir, engines, *await asyncio.to_thread(everything, engines)]
    assert any(path.name == "output" for path in made)
    assert [path for path in made if path.exists() and path.stat().st_mode & 0o077] == []


def everything(folder: Path) -> list[Path]:
    return list(folder.rglob("*"))


def run(*args: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "proxy", *args]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=STOP_TIMEOUT_S, check=False, env=environment()
    )
