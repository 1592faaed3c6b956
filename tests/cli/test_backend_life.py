"""The verbs about a backend's life, beside no server: they change rows, and say what is wrong in one line."""

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlmodel import Session

from backend_pool.model import Backend
from backend_pool.workers.tables import Worker, WorkerToken
from proxy.base.database import Database, sqlite_url
from proxy.cli import main

Said = tuple[int, str, str]
Verb = Callable[..., Said]


@pytest.fixture
def verb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Verb:
    """Run `comfy-cluster backend ...` in this process: exit code, standard output, standard error."""

    def run(*args: str) -> Said:
        monkeypatch.setattr(sys, "argv", ["comfy-cluster", "--data-dir", str(tmp_path / "data"), "backend", *args])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    for number in (1, 2, 3):
        assert run("add", f"http://127.0.0.1:{number}", "--name", f"gpu-{number}")[0] == 0
    return run


@pytest.fixture
def db(tmp_path: Path, verb: Verb) -> Iterator[Database]:
    opened = Database(sqlite_url(tmp_path / "data" / "cluster.db"))
    yield opened
    opened.close()


def row(db: Database, number: int) -> Backend:
    return db.read_now(lambda s: s.get_one(Backend, number))


def packed(db: Database, *numbers: int) -> None:
    """Give these backends the worker pack."""

    def work(s: Session) -> None:
        s.add(WorkerToken(id=1, name="t", token_hash="t", prefix="t", created_ms=1))
        s.flush()
        for number in numbers:
            s.add(Worker(id=f"worker-{number}", backend_id=number, token_id=1))

    db.write_now(work)


def quarantined(db: Database, number: int, why: str) -> None:
    def work(s: Session) -> None:
        found = s.get_one(Backend, number)
        found.quarantine, found.quarantine_ms = why, 1

    db.write_now(work)


def test_labels(verb: Verb, db: Database) -> None:
    assert verb("label", "gpu-1", "gpu=a100", "fast") == (0, "fast gpu=a100\n", "")
    assert verb("label", "gpu-1", "gpu=h100", "--remove", "fast") == (0, "gpu=h100\n", "")
    assert verb("label", "1", "new", "--only")[1] == "new\n"
    code, out, err = verb("label", "gpu-1", "no good")
    assert (code, out) == (1, "") and "'no good' is no label" in err and err.count("\n") == 1
    assert row(db, 1).labels == ["new"]
    assert verb("label", "gpu-9", "x")[0] == 1


def test_draining_until_a_deadline(verb: Verb, db: Database) -> None:
    before = time.time() * 1000
    assert verb("drain", "gpu-1", "--within", "10m", "--note", "new driver") == (0, "Backend gpu-1 is draining.\n", "")
    found = row(db, 1)
    assert found.mode == "draining" and found.note == "new driver"
    assert found.drain_by_ms is not None and 0 <= found.drain_by_ms - before - 600_000 < 60_000
    assert verb("drain", "gpu-1", "--within", "soon")[0] == 1
    assert verb("drain", "gpu-1")[0] == 0
    assert row(db, 1).drain_by_ms is None
    assert verb("activate", "gpu-1")[1] == "Backend gpu-1 is active.\n"
    assert row(db, 1).note == ""


def test_trust_and_notes(verb: Verb, db: Database) -> None:
    code, _, err = verb("trust", "gpu-2")
    assert code == 1 and "not in quarantine" in err
    quarantined(db, 2, "CUDA error:\nan illegal memory access")
    assert verb("note", "gpu-2", "Ann looks at it") == (0, "Backend gpu-2: Ann looks at it\n", "")
    line = verb("list")[1].splitlines()[1].split("\t")
    assert line[:6] == ["2", "gpu-2", "http://127.0.0.1:2", "active", "registered", "stock"]
    assert line[6:] == ["", "", "CUDA error: an illegal memory access", "Ann looks at it"]
    assert verb("trust", "gpu-2") == (0, "Backend gpu-2 is trusted again.\n", "")
    assert row(db, 2).quarantine is None


def test_restarts_are_asked_for(verb: Verb, db: Database) -> None:
    code, out, err = verb("restart", "gpu-1")
    assert (code, out) == (1, "") and "without the worker pack" in err and err.count("\n") == 1
    code, _, err = verb("restart", "--all")
    assert code == 1 and "worker pack" in err
    packed(db, 1, 3)
    assert verb("restart", "--all")[1].splitlines() == [
        "Backend gpu-1 is restarted when its turn comes.",
        "Backend gpu-3 is restarted when its turn comes.",
    ]
    first = row(db, 1).restart_ms
    assert first == row(db, 3).restart_ms > 0 == row(db, 2).restart_ms
    assert verb("restart", "gpu-3")[1] == "Backend gpu-3 is restarted once its job has ended.\n"
    assert row(db, 3).restart_ms > first, "a wish of its own"
    assert verb("restart", "--cancel")[1].count("is not restarted") == 2
    assert row(db, 1).restart_ms == row(db, 3).restart_ms == 0
    assert verb("label", "gpu-3", "rack=7")[0] == 0
    assert verb("restart", "--all", "--label", "rack=7")[1] == "Backend gpu-3 is restarted when its turn comes.\n"


@pytest.mark.parametrize("wrong", [(), ("gpu-1", "--all"), ("--label", "x"), ("--all", "--cancel")])
def test_what_restart_does_not_take(verb: Verb, wrong: tuple[str, ...]) -> None:
    code, out, err = verb("restart", *wrong)
    assert (code, out, err.count("\n")) == (2, "", 1) and "--all" in err
