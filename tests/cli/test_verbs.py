"""The other verbs beside a running server: what they print, exit codes, one clear line when something is wrong."""

import asyncio
import json
import socket
from collections.abc import Iterator
from datetime import datetime
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.cli.verbs import cli, program, refused
from tests.cluster import STOP_TIMEOUT_S, Cluster, start_cluster


async def logged(cluster: Cluster, words: str) -> None:
    """Until the server has logged `words`; its log is all that shows what the pool has taken in."""
    while words not in cluster.log():
        await asyncio.sleep(0.05)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with start_cluster(tmp_path_factory.mktemp("verbs")) as running:
        yield running


@pytest.fixture
def data(cluster: Cluster) -> tuple[str, str]:
    """The option for the running server's directory."""
    return "--data-dir", str(cluster.data_dir)


def test_the_version() -> None:
    done = cli("--version")
    assert (done.returncode, done.stdout) == (0, f"comfy-cluster {version('comfyui-cluster-proxy')}\n")


def test_a_server_without_backends_says_who_draws(cluster: Cluster) -> None:
    assert "no backend is known: an embedded engine draws until one is up" in cluster.log()


async def test_a_user_added_beside_the_server_can_sign_in(cluster: Cluster, data: tuple[str, str]) -> None:
    done = program(*data, "user", "add", "Cleo", "--password-stdin", stdin="a long secret\n")
    assert (done.returncode, done.stdout, done.stderr) == (0, "User Cleo created.\n", "")
    async with cluster.client() as client:
        answer = await client.post("/cluster/login", data={"username": "cleo", "password": "a long secret"})
        assert answer.status_code == 303
        assert (await client.get("/cluster/api/v1/me")).json()["name"] == "Cleo"


async def test_a_generated_password_is_printed_and_works(cluster: Cluster, data: tuple[str, str]) -> None:
    done = cli(*data, "user", "add", "dora", "--admin")
    password = done.stdout.removeprefix("User dora created. Password: ").strip()
    async with cluster.client() as client:
        answer = await client.post("/cluster/login", data={"username": "dora", "password": password})
        assert answer.status_code == 303
        assert (await client.get("/cluster/api/v1/admin/users")).status_code == 200


async def test_a_new_password_ends_the_old_logins(cluster: Cluster, data: tuple[str, str]) -> None:
    person = cluster.user("emil")
    async with cluster.client() as client:
        await client.post("/cluster/login", data={"username": "emil", "password": person.password})
        assert (await client.get("/cluster/api/v1/me")).status_code == 200
        done = cli(*data, "user", "password", "emil", stdin="another secret\n")
        assert (done.returncode, done.stdout) == (0, "Password of emil changed.\n")
        answer = await client.post("/cluster/login", data={"username": "emil", "password": person.password})
        assert answer.status_code == 401
        answer = await client.post("/cluster/login", data={"username": "emil", "password": "another secret"})
        assert answer.status_code == 303


async def test_a_token_is_printed_alone_and_works(cluster: Cluster, data: tuple[str, str]) -> None:
    cluster.user("fritz")
    done = program(*data, "token", "create", "fritz", "--name", "laptop")
    assert done.returncode == 0
    assert done.stderr == ""
    token = done.stdout.removesuffix("\n")
    assert token.replace("-", "").replace("_", "").isalnum()
    async with cluster.client() as client:
        answer = await client.get("/cluster/api/v1/me", headers={"Authorization": f"Bearer {token}"})
        assert answer.json()["name"] == "fritz"


def test_the_list_of_users(cluster: Cluster, data: tuple[str, str]) -> None:
    gina = cluster.user("gina")
    done = cli(*data, "user", "list")
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    assert ["gina", gina.slug, ""] in rows
    assert rows[0][0] == "admin" and rows[0][2] == "admin"


async def test_a_backend_added_beside_the_server_joins(cluster: Cluster, data: tuple[str, str]) -> None:
    done = cli(*data, "backend", "add", "127.0.0.1:9", "--name", "nobody")
    assert (done.returncode, done.stdout) == (0, "Backend nobody added: http://127.0.0.1:9\n")
    rows = [line.split("\t") for line in cli(*data, "backend", "list").stdout.splitlines()]
    assert ["nobody", "http://127.0.0.1:9", "active", "registered", "stock"] in [row[1:6] for row in rows]
    refused(cli(*data, "backend", "add", "http://127.0.0.1:9"), 1, "registered already")
    refused(cli(*data, "backend", "add", "ftp://127.0.0.1"), 1, "not the URL of a ComfyUI")


async def test_a_backend_is_managed_beside_the_server(cluster: Cluster, data: tuple[str, str]) -> None:
    """The running server follows."""
    assert cli(*data, "backend", "add", "http://127.0.0.1:7", "--name", "seven").returncode == 0

    def listed() -> dict[str, list[str]]:
        rows = [line.split("\t") for line in cli(*data, "backend", "list").stdout.splitlines()]
        return {row[1]: row for row in rows}

    async with asyncio.timeout(STOP_TIMEOUT_S):
        await logged(cluster, "backend does not answer yet  backend=seven")  # the pool knows it: it sees what follows
        for verb, mode, which in (
            ("drain", "draining", "seven"),
            ("activate", "active", listed()["seven"][0]),
            ("disable", "disabled", "seven"),
        ):
            done = cli(*data, "backend", verb, which)
            assert (done.returncode, done.stdout, done.stderr) == (0, f"Backend seven is {mode}.\n", "")
            assert listed()["seven"][3] == mode
            if mode == "disabled":
                await logged(cluster, "backend mode changed  backend=seven mode=disabled")
        assert cli(*data, "backend", "remove", "seven").stdout == "Backend seven removed.\n"
        assert "seven" not in listed()
        await logged(cluster, "backend removed  backend=seven")


def test_backends_that_cannot_be_managed(data: tuple[str, str]) -> None:
    for verb in ("remove", "drain", "activate", "disable"):
        refused(cli(*data, "backend", verb, "nobody-there"), 1, "nobody-there", "backend list")
    refused(cli(*data, "backend", "drain", "9" * 30), 1, "no backend")
    refused(cli(*data, "backend", "remove", "engine-1"), 1, "engine-1", "settings")


async def test_the_list_of_sessions(cluster: Cluster, data: tuple[str, str]) -> None:
    person = cluster.user("hedda")
    async with cluster.client(person) as client:
        assert (await client.get("/api/settings")).status_code == 200  # her session runs
    done = cli(*data, "session", "list")
    (row,) = [line.split("\t") for line in done.stdout.splitlines() if line.startswith("hedda\t")]
    assert row[1] == "running" and row[4] == ""
    assert Path(f"/proc/{row[2]}").exists()
    assert datetime.fromisoformat(row[3]).year >= 2025


@pytest.mark.parametrize(
    ("name", "password", "word"),
    [
        ("hugo", "short", "at least 8"),
        ("hugo-hugo", "Hugo-Hugo", "differ"),
        ("hugo", "x" * 300, "at most 256"),
        ("hugo", "with\tcontrols", "control"),
        ("", "long enough", "empty"),
        ("a/b", "long enough", "letters, digits"),
        ("x" * 65, "long enough", "at most 64"),
        ("Admin", "long enough", "already"),
    ],
)
def test_bad_accounts_are_refused(data: tuple[str, str], name: str, password: str, word: str) -> None:
    refused(cli(*data, "user", "add", name, "--password-stdin", stdin=f"{password}\n"), 1, word)


def test_no_password_on_standard_input(data: tuple[str, str]) -> None:
    refused(cli(*data, "user", "add", "ida", "--password-stdin", stdin=""), 2, "standard input")


def test_unknown_users(data: tuple[str, str]) -> None:
    refused(cli(*data, "token", "create", "nobody"), 1, "nobody")
    refused(cli(*data, "user", "password", "nobody", stdin="long enough\n"), 1, "nobody")


def test_doctor_beside_the_server(cluster: Cluster, data: tuple[str, str]) -> None:
    port = cluster.url.rpartition(":")[2]
    done = program(*data, "doctor", env={"COMFY_CLUSTER_PORT": port})
    assert "serves 127.0.0.1:" + port in done.stdout
    assert "ok    session host: answers" in done.stdout
    assert "ok    backend engine-1: " in done.stdout
    assert "Traceback" not in done.stderr


def test_doctor_on_a_bare_machine_changes_nothing(tmp_path: Path) -> None:
    done = cli("--data-dir", str(tmp_path / "new"), "doctor", env={"COMFY_CLUSTER_PORT": "0"})
    assert done.returncode == 0, done.stdout
    assert "BAD" not in done.stdout
    assert not (tmp_path / "new").exists()


def test_doctor_says_what_is_wrong(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        config = tmp_path / "cluster.toml"
        config.write_text(f'port = {port}\nbackends = ["http://127.0.0.1:9"]\n')
        env = {"COMFY_CLUSTER_PROT": "1", "COMFY_CLUSTER_PROBE_TIMEOUT_S": "1"}
        done = cli("--config", str(config), "--data-dir", str(tmp_path / "d"), "doctor", env=env)
    assert done.returncode == 1
    bad = [line for line in done.stdout.splitlines() if line.startswith("BAD")]
    for word in ("COMFY_CLUSTER_PROT", "another program", "http://127.0.0.1:9 does not answer"):
        assert any(word in line for line in bad), (word, done.stdout)


def test_a_second_server_on_the_same_directory(cluster: Cluster, data: tuple[str, str]) -> None:
    refused(program("up", *data, "--port", "0"), 2, "Another server", str(cluster.data_dir))


def test_the_first_administrator_has_the_configured_password(tmp_path: Path) -> None:
    env = {"COMFY_CLUSTER_ADMIN_PASSWORD": "short", "COMFY_CLUSTER_LOG_LEVEL": "error"}
    refused(cli("--data-dir", str(tmp_path), "up", "--port", "0", env=env), 2, "administrator", "at least 8")


def test_help_names_every_verb() -> None:
    done = cli("--help")
    assert done.returncode == 0
    for verb in ("up", "demo", "user", "token", "backend", "doctor", "relay", "session-host", "bench"):
        assert verb in done.stdout
    assert cli("nonsense").returncode == 2
    assert "Traceback" not in cli("up", "--port", "x").stderr


def test_secrets_are_made_private(cluster: Cluster) -> None:
    for name in ("cluster.db", "secret.key"):
        assert (cluster.data_dir / name).stat().st_mode & 0o777 == 0o600
    assert cluster.data_dir.stat().st_mode & 0o077 == 0
    printed = [line for line in cluster.output if line.startswith("Administrator: ")]
    assert len(printed) == 1
    password = printed[0].split("password: ")[1].split()[0]
    assert password not in cluster.log()
    assert password not in json.dumps(cluster.processes())


async def test_a_session_refresh_waits_and_tells(cluster: Cluster, data: tuple[str, str]) -> None:
    person = await asyncio.to_thread(cluster.user, "refreshing")
    async with cluster.client(person) as client:
        assert (await client.get("/settings")).status_code == 200
        done = await asyncio.to_thread(cli, *data, "session", "refresh")
        assert done.returncode == 0 and done.stderr.count("\n") == 1, done.stderr
        assert done.stderr.startswith("Warming a fresh one beside the old")
        assert done.stdout.startswith("Sessions start afresh from now on") and "from before" in done.stdout
        while not (await client.get("/cluster/api/v1/session")).json()["outdated"]:
            await asyncio.sleep(0.05)
        assert (await client.post("/cluster/api/v1/session/restart")).json()["state"] == "running"
        while (await client.get("/cluster/api/v1/session")).json()["outdated"]:
            await asyncio.sleep(0.05)
    assert "by=the command line" in (cluster.data_dir / "logs" / "session-host.log").read_text().replace("'", "")


def test_a_session_refresh_without_a_server_says_so(tmp_path: Path) -> None:
    assert cli("--data-dir", str(tmp_path / "d"), "user", "add", "ann").returncode == 0
    refused(cli("--data-dir", str(tmp_path / "d"), "session", "refresh"), 1, "session host")
