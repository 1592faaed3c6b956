"""What strangers' WebSockets leave in the log of a running server: nothing."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from tests.cluster import Cluster, start_cluster

REFUSED = 25


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with start_cluster(tmp_path, "--engines", "0") as running:
        yield running


async def refusal(cluster: Cluster, **headers: str) -> int:
    """The status that a handshake with those headers is refused with."""
    url = cluster.url.replace("http", "ws", 1) + "/ws"
    with pytest.raises(InvalidStatus) as refused:
        async with connect(url, additional_headers=headers, proxy=None):
            pytest.fail("it was let in")
    return refused.value.response.status_code


async def test_refused_handshakes_are_not_logged_as_errors(cluster: Cluster) -> None:
    ann = cluster.user("ann")
    async with cluster.client() as client:
        await client.post("/cluster/login", data={"username": "ann", "password": ann.password})
        cookie = "; ".join(f"{name}={value}" for name, value in client.cookies.items())
    before = cluster.log()
    for number in range(REFUSED):
        assert await refusal(cluster, Authorization=f"Bearer wrong-{number}") in (401, 429)
        assert await refusal(cluster, Cookie=cookie, Origin="https://evil.example") == 403
    assert cluster.stop() == 0
    logged = cluster.log().removeprefix(before)
    assert "handshake" not in logged
    assert not [line for line in logged.splitlines() if " ERROR " in line or " WARNING " in line]
