"""`backend compare` and `backend refresh`, beside no server: they read and change what one would."""

from pathlib import Path

from backend_pool.backends.registry import Registry
from backend_pool.offers.offer import Offer
from backend_pool.offers.store import OfferStore
from proxy.base.database import Database, sqlite_url
from tests.backend_pool.infos import info
from tests.cli.verbs import cli, refused

FIRST, SECOND, THIRD = (f"http://127.0.0.1:{port}" for port in (7, 8, 9))


def test_backends_are_compared_and_read_again(tmp_path: Path) -> None:
    data = ("--data-dir", str(tmp_path / "data"))
    for number, url in enumerate((FIRST, SECOND, THIRD), 1):
        assert cli(*data, "backend", "add", url, "--name", f"gpu-{number}").returncode == 0
    store = OfferStore(tmp_path / "data")
    store.save(1, FIRST, Offer(info("a"), {"loras": ("x.safetensors",)}))
    store.save(2, SECOND, Offer(info("a", Only={"input": {}}), {"loras": ()}))
    every = len(info())
    assert cli(*data, "backend", "compare").stdout.splitlines() == [
        f"gpu-1\t{every} nodes\t1 models\tlacks 1 nodes and 0 models\tdefines 0 otherwise",
        f"gpu-2\t{every + 1} nodes\t0 models\tlacks 0 nodes and 1 models\tdefines 0 otherwise",
        "gpu-3\thas not told yet what it offers",
    ]
    full = cli(*data, "backend", "compare", "--full").stdout.splitlines()
    assert full[1] == "\tnode\tOnly" and full[3] == "\tmodel\tloras/x.safetensors"
    assert cli(*data, "backend", "refresh", "gpu-2").stdout == "Backend gpu-2 is read again within seconds.\n"
    refused(cli(*data, "backend", "refresh", "nope"), 1, "There is no backend 'nope'.")
    db = Database(sqlite_url(tmp_path / "data" / "cluster.db"))
    try:
        asked = {row.name: row.refresh_ms for row in Registry(db).listing_now()}
    finally:
        db.close()
    assert asked["gpu-2"] > 0 and asked["gpu-1"] == 0
