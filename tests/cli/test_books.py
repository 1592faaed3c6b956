"""The verbs about groups, reservations and usage, on a data directory without a server."""

from collections.abc import Callable
from datetime import UTC, date, datetime
from functools import partial
from pathlib import Path

import pytest
from typer.testing import CliRunner

from backend_pool.backends.registry import Registry
from backend_pool.books.ledger import day_of
from backend_pool.books.tables import LedgerEntry
from backend_pool.job_state import JobState
from backend_pool.lane import Lane
from proxy.access import accounts
from proxy.base.clock import now_ms
from proxy.base.database import Database
from proxy.base.errors import BadInput, ClusterError, Conflict, NotFound
from proxy.base.schema import upgrade
from proxy.base.settings import Settings
from proxy.cli import app
from proxy.data_dir import prepare

Cli = Callable[..., list[list[str]]]


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    """Runs a verb in this process; returns its lines' fields, or raises what it raised."""
    settings = Settings(data_dir=tmp_path)
    prepare(tmp_path)
    db = Database(settings.database)
    upgrade(db)
    for name in ("Ann", "Ben"):
        db.write_now(partial(accounts.insert, name=name, password_hash="x"))
    Registry(db).add_now("http://127.0.0.1:9", "gpu-1")
    db.write_now(lambda s: s.add_all([charged(1, 1, 2000), charged(2, 2, 7000)]))
    db.close()

    def run(*args: str) -> list[list[str]]:
        done = CliRunner().invoke(app, ["--data-dir", str(tmp_path), *args])
        if isinstance(done.exception, ClusterError):
            raise done.exception
        assert done.exit_code == 0, done.output
        return [line.split("\t") for line in done.output.splitlines()]

    return run


def charged(key: int, user_id: int, gpu_ms: int) -> LedgerEntry:
    now = now_ms()
    return LedgerEntry(
        job_seq=key, prompt_id=f"p{key}", user_id=user_id, group_name="", lane=Lane.BATCH, backend="gpu-1", device="",
        result=JobState.SUCCEEDED, attempts=1, created_ms=now, ended_ms=now, day=day_of(now), wait_ms=1500, load_ms=0,
        run_ms=gpu_ms, gpu_ms=gpu_ms,
    )  # fmt: skip


def test_groups(cli: Cli) -> None:
    cli("group", "add", "research", "--weight", "2", "--running", "4", "--label", "gpu=a100", "--user", "ann")
    cli("group", "set", "research", "--quota-s", "3600", "--quota-period", "month", "--priority", "3")
    assert cli("group", "list") == [["1", "research", "2", "4", "-", "3", "-", "gpu=a100", "3600 s/month", "1"]]
    assert cli("group", "members", "Research") == [["Ann"]]
    cli("group", "set", "1", "--running", "0", "--quota-s", "0", "--no-labels")
    assert cli("group", "list") == [["1", "research", "2", "-", "-", "3", "-", "-", "-", "1"]]
    assert cli("user", "group", "ben", "research") == [["User ben is in the group research."]]
    cli("user", "group", "Ann", "none")
    assert cli("group", "members", "research") == [["Ben"]]
    done = CliRunner().invoke(app, ["group", "set", "research"])
    assert done.exit_code == 2 and "nothing to change" in done.output
    cli("group", "remove", "research")
    assert cli("group", "list") == []


def test_what_is_refused(cli: Cli) -> None:
    """Nothing of it is half done."""
    refused: list[tuple[str, type[ClusterError]]] = [
        ("group set nobody --weight 2", NotFound),
        ("group add a --weight 0", BadInput),
        ("group add 2026", BadInput),
        ("group add None", BadInput),
        ("group add a --quota-period week", BadInput),
        ("group add a --user nobody", NotFound),
        ("user group nobody none", NotFound),
        ("user group ann nobody", NotFound),
        ("reservation remove 5", NotFound),
        ("usage --by name", BadInput),
        ("usage --user nobody", NotFound),
    ]
    for words, error in refused:
        with pytest.raises(error):
            cli(*words.split())
    assert cli("group", "list") == []


def test_reservations(cli: Cli) -> None:
    cli("group", "add", "class")
    day = f"{datetime.now(UTC).year + 1}-03-02"
    ahead = ("--from", f"{day}T10:00+01:00", "--to", f"{day}T11:00+01:00")
    cli("reservation", "add", "class", *ahead, "--backend", "gpu-1", "--note", "drawing course")
    listed = ["1", "class", f"{day} 09:00", f"{day} 10:00", "gpu-1", "-", "drawing course"]
    assert cli("reservation", "list") == [listed]
    with pytest.raises(Conflict, match="gpu-1"):
        cli("reservation", "add", "class", *ahead, "--backend", "1")
    with pytest.raises(BadInput, match="zone"):
        cli("reservation", "add", "class", "--from", f"{day}T10:00", "--to", f"{day}T11:00", "--backend", "1")
    with pytest.raises(BadInput, match="five years"):
        cli("reservation", "add", "class", "--from", "9999-12-31T10:00-12:00", "--to", "9999-12-31T23:00-12:00")
    cli("reservation", "remove", "1")
    assert cli("reservation", "list") == []


def test_usage(cli: Cli) -> None:
    assert cli("usage") == [
        ["Ben", "1", "1", "0", "0", "7.0", "0.0", "7.0", "1.5"],
        ["Ann", "1", "1", "0", "0", "2.0", "0.0", "2.0", "1.5"],
    ]
    assert [row[:2] for row in cli("usage", "--by", "group", "--user", "ann")] == [["-", "1"]]
    (today,) = cli("usage", "--by", "day", "--group", "none")
    assert today[1] == "2" and date.fromisoformat(today[0]) and cli("usage", "--group", "class") == []
    assert cli("usage", "--by", "backend", "--csv")[1] == ['"gpu-1",2,2,0,0,9.0,0.0,9.0,3.0']
    jobs = [row[0].replace('"', "").split(",") for row in cli("usage", "--csv", "--days", "2")]
    assert [row[:3] for row in jobs] == [["job", "prompt_id", "user"], ["1", "p1", "Ann"], ["2", "p2", "Ben"]]
