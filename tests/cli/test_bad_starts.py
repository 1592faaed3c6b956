"""What is wrong before anything starts: one line, an exit code, and nothing is left behind."""

import os
import socket
import sqlite3
from pathlib import Path

import pytest

from tests.cli.verbs import cli, program, refused


@pytest.mark.parametrize(
    ("flag", "value", "word"),
    [
        ("--runtime", "comfyui", "--comfyui"),
        ("--comfyui", "/nowhere/ComfyUI", "main.py"),
        ("--runtime", "heavy", "runtime"),
    ],
)
def test_a_runtime_that_is_not_there_starts_nothing(tmp_path: Path, flag: str, value: str, word: str) -> None:
    done = cli("up", "--data-dir", str(tmp_path / "d"), "--port", "0", flag, value)
    refused(done, 2, word)
    assert not (tmp_path / "d").exists()


@pytest.mark.parametrize("url", ["ftp://x", "not a url"])
def test_a_backend_flag_that_is_no_address_starts_nothing(tmp_path: Path, url: str) -> None:
    done = cli("up", "--data-dir", str(tmp_path / "d"), "--port", "0", "--backend", url)
    refused(done, 2, "backends", url, "not the URL of a ComfyUI")
    assert not (tmp_path / "d").exists()


def test_a_taken_port(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = cli("up", "--data-dir", str(tmp_path / "d"), "--port", port, env={"COMFY_CLUSTER_LOG_LEVEL": "error"})
    refused(done, 2, f"127.0.0.1:{port}", "--port")


def test_a_foreign_address(tmp_path: Path) -> None:
    env = {"COMFY_CLUSTER_LOG_LEVEL": "error"}
    refused(cli("up", "--data-dir", str(tmp_path), "--host", "192.0.2.1", env=env), 2, "192.0.2.1")


def test_an_unwritable_data_directory(tmp_path: Path) -> None:
    """A file stands in the way: that holds for root, too, who may write into everything."""
    (tmp_path / "file").write_text("")
    data = ("--data-dir", str(tmp_path / "file" / "data"))
    for verb in (["up", "--port", "0"], ["backend", "add", "gpu"]):
        refused(cli(*data, *verb), 2, "cannot be written", "--data-dir")
    refused(program(*data, "session-host"), 2, "cannot be written", "--data-dir")  # it becomes another program


@pytest.mark.parametrize(
    ("verb", "stdin"),
    [
        ("user list", ""),
        ("user password ann", "long enough\n"),
        ("token create ann", ""),
        ("backend list", ""),
        ("backend drain gpu", ""),
        ("session list", ""),
    ],
)
def test_a_mistyped_directory_is_not_made(tmp_path: Path, verb: str, stdin: str) -> None:
    typo = tmp_path / "typo"
    refused(cli("--data-dir", str(typo), *verb.split(), stdin=stdin), 2, f"no data directory {typo}", "--data-dir")
    assert not typo.exists()
    typo.mkdir()
    refused(cli("--data-dir", str(typo), *verb.split(), stdin=stdin), 2, "no database", "--data-dir")
    assert list(typo.iterdir()) == []


def test_adding_to_a_fresh_directory_says_no_more_than_that(tmp_path: Path) -> None:
    for verb in ("user add ann", "backend add gpu"):
        done = program("--data-dir", str(tmp_path / verb.replace(" ", "-")), *verb.split())
        assert (done.returncode, done.stderr, len(done.stdout.splitlines())) == (0, "", 1)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_data_directory_of_somebody_else(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir(mode=0o500)
    refused(cli("--data-dir", str(tmp_path / "theirs"), "up", "--port", "0"), 2, "cannot be written")


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("port = 99999", "port"),
        ("prot = 1", "prot: there is no such setting"),
        ('runtime = "heavy"', "runtime"),
        ("port = ", "cluster.toml: Invalid value"),
        ("engines = -1", "engines"),
    ],
)
def test_a_bad_settings_file(tmp_path: Path, text: str, word: str) -> None:
    config = tmp_path / "cluster.toml"
    config.write_text(text)
    refused(cli("up", "--config", str(config), "--data-dir", str(tmp_path / "d")), 2, word)


def test_no_settings_file(tmp_path: Path) -> None:
    refused(cli("--config", str(tmp_path / "none.toml"), "user", "list"), 2, "none.toml", "--config")


def test_a_bad_variable(tmp_path: Path) -> None:
    env = {"COMFY_CLUSTER_BACKENDS": "http://a,http://b"}
    refused(cli("--data-dir", str(tmp_path), "user", "list", env=env), 2, "backends")


def test_a_database_of_a_newer_version(tmp_path: Path) -> None:
    assert cli("--data-dir", str(tmp_path), "backend", "add", "gpu").returncode == 0
    with sqlite3.connect(tmp_path / "cluster.db") as db:
        db.execute("UPDATE alembic_version SET version_num = '9999'")
    db.close()
    refused(cli("--data-dir", str(tmp_path), "up", "--port", "0"), 2, "9999", "newer")
    done = cli("--data-dir", str(tmp_path), "doctor")
    assert done.returncode == 1
    assert "9999" in done.stdout


def test_a_database_that_was_moved_away_is_not_made_anew(tmp_path: Path) -> None:
    """An empty server in its place would take everybody's logins and jobs for gone."""
    database, key = tmp_path / "cluster.db", tmp_path / "secret.key"
    key.touch()
    for verb in (["up", "--port", "0"], ["backend", "add", "gpu"], ["user", "list"]):
        refused(cli("--data-dir", str(tmp_path), *verb), 2, str(database), "missing", "Put it back", "secret.key")
    assert [path.name for path in tmp_path.iterdir()] == ["secret.key"]
    elsewhere = {"COMFY_CLUSTER_DATABASE_URL": f"sqlite:///{tmp_path / 'other.db'}"}
    assert cli("--data-dir", str(tmp_path), "backend", "add", "gpu", env=elsewhere).returncode == 0
    key.unlink()
    assert cli("--data-dir", str(tmp_path), "backend", "add", "gpu").returncode == 0
    assert database.exists()


def test_a_damaged_database_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "cluster.db").write_bytes(b"this is no database at all" * 1000)
    refused(cli("--data-dir", str(tmp_path), "user", "list"), 2, "cluster.db")
    assert cli("--data-dir", str(tmp_path), "doctor").returncode == 1
