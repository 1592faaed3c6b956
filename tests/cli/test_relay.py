"""`comfy-cluster relay` before a real server: requests, streams, ranges, WebSockets, and whom it does not serve."""

import contextlib
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import httpx
import pytest

from proxy.base.errors import ConfigError
from proxy.verbs.relay import base_url, parsed, run_relay
from tests.cli.verbs import cli
from tests.cluster import STOP_TIMEOUT_S, Cluster, Person, environment, start_cluster

BYTES = bytes(range(256)) * 12_000  # 3 MB


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with start_cluster(tmp_path_factory.mktemp("relay")) as running:
        yield running


@pytest.fixture(scope="module")
def ann(cluster: Cluster) -> Person:
    return cluster.user("ann")


@pytest.fixture(scope="module")
def relay(cluster: Cluster, ann: Person) -> Iterator[str]:
    """Its URL."""
    process = start(["--listen", "127.0.0.1:0", "--server", cluster.url], ann.token)
    try:
        assert process.stdout is not None
        ready = process.stdout.readline()
        assert ready.startswith("Ready: http://127.0.0.1:"), process.communicate()
        assert ready.endswith(f" as ann on {cluster.url}\n")
        yield ready.split()[1]
        process.terminate()
        _, errors = process.communicate(timeout=STOP_TIMEOUT_S)
        assert process.returncode == 0
        assert "Traceback" not in errors
        assert ann.token not in errors
    finally:
        process.kill()
        process.communicate()


def start(arguments: list[str], token: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "proxy", "relay", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment({"COMFY_CLUSTER_TOKEN": token}),
    )


def fails(arguments: list[str], token: str = "cct_wrong") -> tuple[int, str]:
    done = cli("relay", *arguments, env={"COMFY_CLUSTER_TOKEN": token})
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1, done.stderr
    return done.returncode, done.stderr


@contextlib.asynccontextmanager
async def at(url: str, **headers: str) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=url, headers=headers, trust_env=False, timeout=30) as client:
        yield client


async def test_what_comes_in_is_the_owners(relay: str) -> None:
    async with at(relay) as client:
        assert (await client.get("/cluster/api/v1/me")).json()["name"] == "ann"
        stored = await client.post("/api/settings/Comfy.Test", json={"a": 1})
        assert stored.status_code == 200
        assert (await client.get("/api/settings/Comfy.Test")).json() == {"a": 1}
        page = await client.get("/")
        assert page.status_code == 200 and "<html" in page.text.lower()
        # %2F stays one segment of the path.
        saved = await client.post("/api/userdata/workflows%2Fone.json", json={})
        assert saved.status_code == 200
        assert (await client.get("/api/userdata?dir=workflows")).json() == ["one.json"]


async def test_a_clients_own_credentials_do_not_count(relay: str) -> None:
    headers = {"Authorization": "Bearer nonsense", "Cookie": "comfy_cluster_login=nonsense", "X-API-Key": "nonsense"}
    async with at(relay, **headers) as client:
        assert (await client.get("/cluster/api/v1/me")).json()["name"] == "ann"


async def test_uploads_stream_up_and_ranges_come_back(relay: str) -> None:
    async with at(relay) as client:
        sent = await client.post("/upload/image", files={"image": ("big.bin", BYTES)}, data={"type": "input"})
        assert sent.status_code == 200, sent.text
        address = "/view?filename=big.bin&type=input"
        assert (await client.get(address)).content == BYTES
        part = await client.get(address, headers={"Range": "bytes=5-9"})
        assert part.status_code == 206
        assert part.content == BYTES[5:10]
        assert part.headers["content-range"] == f"bytes 5-9/{len(BYTES)}"
        head = await client.head(address)
        assert head.status_code == 200
        assert head.content == b""
        assert int(head.headers["content-length"]) == len(BYTES)


async def test_a_body_of_unknown_length_is_passed_on(relay: str) -> None:
    async def body() -> AsyncIterator[bytes]:
        for part in (b'{"a":', b" [1,", b" 2]}"):
            yield part

    async with at(relay) as client:
        sent = await client.post("/api/userdata/chunked.json", content=body())
        assert sent.status_code == 200, sent.text
        assert (await client.get("/api/userdata/chunked.json")).json() == {"a": [1, 2]}


async def test_no_compression_for_who_asks_for_none(relay: str) -> None:
    async with at(relay) as client:
        plain = await client.get("/", headers={"Accept-Encoding": "identity"})
        assert "content-encoding" not in plain.headers


async def test_errors_are_the_servers(relay: str) -> None:
    async with at(relay) as client:
        answer = await client.post("/prompt", json={"prompt": {}})
        assert answer.status_code == 400
        assert answer.json()["error"]["type"] == "prompt_no_outputs"


async def test_a_websocket_speaks_both_ways(relay: str) -> None:
    timeout = aiohttp.ClientWSTimeout(ws_close=5)
    async with (
        aiohttp.ClientSession(trust_env=False) as session,
        session.ws_connect(f"{relay}/ws?clientId=a", timeout=timeout, headers={"Origin": relay}) as socket,
    ):
        first = await socket.receive_json(timeout=20)
        assert first["type"] == "status"
        assert first["data"]["sid"] == "a"
        await socket.send_json({"type": "feature_flags", "data": {"supports_preview_metadata": True}})
        assert (await socket.receive_json(timeout=20))["type"] == "feature_flags"
        await socket.close()
        assert socket.close_code == 1000


async def test_the_server_ends_and_so_does_the_websocket(tmp_path: Path) -> None:
    with start_cluster(tmp_path, "--engines", "0") as cluster:
        bob = cluster.user("bob")
        process = start(["--listen", "127.0.0.1:0", "--server", cluster.url], bob.token)
        try:
            assert process.stdout is not None
            url = process.stdout.readline().split()[1]
            async with aiohttp.ClientSession(trust_env=False) as session, session.ws_connect(f"{url}/ws") as socket:
                await socket.receive_json(timeout=20)
                cluster.kill()
                async for _ in socket:  # what was under way; ends when the relay closes its side
                    pass
                assert socket.closed
            async with at(url) as client:
                answer = await client.get("/queue")
                assert answer.status_code == 502
                assert answer.json()["error"]["type"] == "unavailable"
        finally:
            process.terminate()
            process.communicate(timeout=STOP_TIMEOUT_S)
        assert process.returncode == 0


@pytest.mark.parametrize(
    "headers", [{"Origin": "https://evil.example"}, {"Origin": "null"}, {"Host": "evil.example"}, {"Host": "a b"}]
)
async def test_other_sites_pages_are_refused(relay: str, headers: dict[str, str]) -> None:
    async with at(relay, **headers) as client:
        answer = await client.get("/cluster/api/v1/me")
        assert answer.status_code in (400, 403)
        assert "ann" not in answer.text
    async with aiohttp.ClientSession(trust_env=False) as session:
        with pytest.raises(aiohttp.WSServerHandshakeError):
            await session.ws_connect(f"{relay}/ws", headers=headers)


def test_a_refused_token_and_an_absent_server_are_one_line(cluster: Cluster) -> None:
    code, line = fails(["--listen", "127.0.0.1:0", "--server", cluster.url])
    assert code == 2
    assert "refuses the token" in line
    code, line = fails(["--listen", "127.0.0.1:0", "--server", "http://127.0.0.1:9"])
    assert code == 1
    assert "does not answer" in line


def test_a_taken_port_is_one_line(cluster: Cluster, ann: Person) -> None:
    taken = cluster.url.removeprefix("http://")
    code, line = fails(["--listen", taken, "--server", cluster.url], ann.token)
    assert code == 2
    assert taken in line


@pytest.mark.parametrize("listen", ["0.0.0.0:8188", "[::]:8188", "192.0.2.1:80", "example.org:80"])
def test_the_network_is_not_served_unless_told(listen: str) -> None:
    with pytest.raises(ConfigError, match="--allow-network"):
        run_relay(listen, "http://127.0.0.1:9", "t")


@pytest.mark.parametrize("listen", ["8188", "localhost", "", "localhost:x", "localhost:99999", ":8188", "h:1/path"])
def test_bad_addresses_to_listen_on(listen: str) -> None:
    with pytest.raises(ConfigError, match="HOST:PORT"):
        parsed(listen)


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("comfy.example", "http://comfy.example"),
        ("https://comfy.example/", "https://comfy.example"),
        ("http://h:1/base/", "http://h:1/base"),
    ],
)
def test_server_urls(given: str, meant: str) -> None:
    assert base_url(given) == meant


@pytest.mark.parametrize("given", ["ftp://h", "http://", "http://h?x=1", "https://h#x"])
def test_bad_server_urls(given: str) -> None:
    with pytest.raises(ConfigError, match="no URL"):
        base_url(given)
