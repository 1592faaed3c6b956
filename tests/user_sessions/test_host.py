"""The session host as a process: one per run directory, robust against its own parts dying, clean when it ends."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import aiohttp
import pytest

from proxy.base.errors import ConfigError, Unavailable
from proxy.base.log_file import LOG_BYTES
from proxy.base.processes import recorded, start_time
from tests.user_sessions.studio import (
    DEAF,
    PROBE,
    Studio,
    ask,
    gone,
    make_settings,
    make_spec,
    until,
)
from user_sessions.host_process import HostProcess
from user_sessions.run_dir import host_socket


async def call(studio: Studio, method: str, path: str, token: str | None = None, data: bytes = b"") -> tuple[int, str]:
    """One raw request to the control socket."""
    control = host_socket(studio.host.run)
    headers = {"Authorization": f"Bearer {control.with_suffix('.token').read_text() if token is None else token}"}
    async with (
        aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(control))) as client,
        client.request(method, f"http://host{path}", data=data, headers=headers) as response,
    ):
        return response.status, await response.text()


async def started_pid(studio: Studio, slug: str) -> int:
    """Start a session; its process id."""
    poll = await studio.spawner.start(make_spec(studio.settings, slug))
    assert poll.pid is not None
    return poll.pid


def host_pid(studio: Studio) -> int:
    """The host's process id."""
    daemon = recorded(studio.host.record)
    assert daemon is not None
    return daemon.pid


async def zygote_pid(studio: Studio) -> int:
    """The current zygote's process id, once it is warm."""

    async def warm() -> bool:
        with contextlib.suppress(Unavailable):
            return bool((await studio.health())["zygote"]["warm"])
        return False

    await until(warm)
    return int((await studio.health())["zygote"]["pid"])


def children(pid: int) -> set[int]:
    """Living child processes."""
    return {int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}


async def test_a_second_host_on_a_live_socket_refuses_in_one_line(studio: Studio) -> None:
    second = await asyncio.to_thread(
        subprocess.run, studio.host.command(), capture_output=True, text=True, timeout=30, check=False
    )
    assert second.returncode == 2
    assert len(second.stderr.strip().splitlines()) == 1 and "already" in second.stderr
    assert (await studio.health())["pid"] == host_pid(studio)


async def test_a_stale_socket_is_replaced(place: Path) -> None:
    settings = make_settings(place)
    settings.data_dir.mkdir()
    host = HostProcess(settings, PROBE)
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(host_socket(host.run)))
    await host.ensure()
    await host.stop()


async def test_a_running_host_is_adopted_and_one_of_others_is_never_ended(studio: Studio) -> None:
    again = HostProcess(studio.settings, PROBE)
    await again.ensure()
    assert (await studio.health())["pid"] == host_pid(studio)
    record = studio.host.record.read_text()
    studio.host.record.unlink()  # as if a service manager had started it
    await again.stop()
    assert (await studio.health())["sessions"]["running"] == 0
    studio.host.record.write_text(record)


async def test_a_host_with_another_runtime_gives_way_unless_it_is_not_ours(studio: Studio) -> None:
    before = await started_pid(studio, "ann")
    other = HostProcess(studio.settings, DEAF)
    record = studio.host.record.read_text()
    studio.host.record.unlink()
    with pytest.raises(ConfigError, match="ProbeRuntime"):
        await other.ensure()
    studio.host.record.write_text(record)
    await other.ensure()
    await gone(before)
    assert (await studio.health())["runtime"] == DEAF


async def test_only_the_token_opens_the_control_socket(studio: Studio) -> None:
    for path in ("/health", "/sessions", "/sessions/x"):
        status, body = await call(studio, "GET", path, token="wrong")
        assert status == 403 and json.loads(body)["error"]["type"] == "forbidden"
    assert (await call(studio, "POST", "/shutdown", token=""))[0] == 403
    token = host_socket(studio.host.run).with_suffix(".token")
    assert token.stat().st_mode & 0o777 == 0o600
    assert studio.host.run.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b"\xff\xfe", b"{}", b'{"session_id": 1}', b'{"session_id": "a"}', b'"' * 5000],
)
async def test_bad_orders_are_refused_and_change_nothing(studio: Studio, body: bytes) -> None:
    status, text = await call(studio, "POST", "/sessions", data=body)
    assert status == 400 and json.loads(text)["error"]["message"]
    assert (await studio.health())["sessions"] == {"running": 0, "exited": 0}


async def test_paths_that_lead_out_are_refused(studio: Studio) -> None:
    good = make_spec(studio.settings, "ann").to_json()
    for field, value in (("socket", "relative.sock"), ("log", "/tmp/../etc/x"), ("max_upload_mb", 0), ("user", "")):
        status, _ = await call(studio, "POST", "/sessions", data=json.dumps(good | {field: value}).encode())
        assert status == 400, field
    assert (await studio.health())["sessions"]["running"] == 0


async def test_a_killed_zygote_is_replaced_and_its_sessions_end_conclusively(studio: Studio) -> None:
    spec = make_spec(studio.settings, "ann")
    poll = await studio.spawner.start(spec)
    assert poll.pid is not None
    before = await zygote_pid(studio)
    os.kill(before, signal.SIGKILL)
    await gone(poll.pid)

    async def exited() -> bool:
        return (await studio.spawner.poll(spec.session_id)).state == "exited"

    await until(exited)
    assert await started_pid(studio, "ann")
    assert await zygote_pid(studio) != before


async def test_a_stopped_zygote_costs_a_start_its_timeout_and_nothing_else(place: Path) -> None:
    studio = Studio(place, session_start_timeout_s=4.0)
    try:
        await studio.open()
        zygote = await zygote_pid(studio)  # warm: the time-out is for sessions here
        running = make_spec(studio.settings, "ann")
        await studio.spawner.start(running)
        os.kill(zygote, signal.SIGSTOP)
        late = make_spec(studio.settings, "bob")
        with pytest.raises(Unavailable):
            await studio.spawner.start(late)
        assert (await ask(running, "pid"))["ok"]
        os.kill(zygote, signal.SIGCONT)

        async def settled() -> bool:
            return (await studio.spawner.poll(late.session_id)).state == "exited"

        await until(settled)
        assert [poll.session_id for poll in await studio.spawner.listing()] == [running.session_id]
    finally:
        await studio.close()


async def test_a_killed_host_takes_its_sessions_along_and_the_next_starts_clean(studio: Studio) -> None:
    session, zygote = await started_pid(studio, "ann"), await zygote_pid(studio)
    os.kill(host_pid(studio), signal.SIGKILL)
    await gone(session)
    await gone(zygote)
    assert await studio.spawner.listing() == []  # revived by the call itself
    assert await started_pid(studio, "ann") != session


async def test_the_host_ends_all_it_started_on_sigterm(studio: Studio) -> None:
    pids = [await started_pid(studio, slug) for slug in ("ann", "bob")] + [await zygote_pid(studio), host_pid(studio)]
    await asyncio.to_thread(os.kill, host_pid(studio), signal.SIGTERM)
    for pid in pids:
        await gone(pid)
    assert not host_socket(studio.host.run).exists()


async def test_a_host_nobody_can_reach_any_more_ends_itself(studio: Studio) -> None:
    pids = [await started_pid(studio, "ann"), await zygote_pid(studio), host_pid(studio)]
    host_socket(studio.host.run).unlink()  # as when the data directory is removed
    for pid in pids:
        await gone(pid)


async def test_nothing_piles_up(studio: Studio) -> None:
    async def cycle() -> None:
        specs = [make_spec(studio.settings, f"user{number}") for number in range(6)]
        await asyncio.gather(*(studio.spawner.start(spec) for spec in specs))
        await asyncio.gather(*(studio.spawner.stop(spec.session_id) for spec in specs))

    zygote = await zygote_pid(studio)

    def open_files() -> tuple[int, int]:
        return tuple(len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in (host_pid(studio), zygote))  # type: ignore[return-value]

    await cycle()
    before = open_files()
    await cycle()
    await cycle()

    async def back() -> bool:
        # Fewer are fine: a kept-alive control connection may have been counted before.
        return all(now <= was for now, was in zip(open_files(), before, strict=True)) and not children(zygote)

    await until(back)


async def test_a_noisy_sessions_log_stays_bounded(studio: Studio) -> None:
    spec = make_spec(studio.settings, "ann")
    await studio.spawner.start(spec)
    line_bytes = 99 * 1000 + 1
    for _ in range(LOG_BYTES // line_bytes + 2):
        await ask(spec, "shout", count=1000)
    assert spec.log.stat().st_size > LOG_BYTES

    async def trimmed() -> bool:
        return spec.log.stat().st_size < LOG_BYTES and b"older lines were dropped" in spec.log.read_bytes()[:100]

    await until(trimmed)
    await ask(spec, "shout", count=1)
    assert spec.log.read_bytes().endswith(b"x" * 99 + b"\n")


async def test_a_host_that_cannot_start_is_an_operators_error(place: Path) -> None:
    settings = make_settings(place)
    settings.data_dir.mkdir()
    (settings.data_dir / "public").write_text("in the way")
    with pytest.raises(ConfigError, match="public"):
        await HostProcess(settings, PROBE).ensure()


@pytest.mark.parametrize("runtime", ["nothing", "no.such.module:Thing"])
async def test_an_unknown_runtime_is_named(place: Path, runtime: str) -> None:
    settings = make_settings(place)
    settings.data_dir.mkdir()
    with pytest.raises(ConfigError, match="There is no runtime"):
        await HostProcess(settings, runtime).ensure()


def test_a_data_directory_that_sessions_could_read_is_refused(place: Path) -> None:
    command = [sys.executable, "-m", "user_sessions.host", "--data-dir", str(place / "data")]
    command += ["--socket", str(place / "run.sock"), "--runtime", PROBE, "--readable", str(place)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert ended.returncode == 2 and "Move it elsewhere" in ended.stderr


async def test_the_proxys_end_touches_no_session(studio: Studio, place: Path) -> None:
    """A stand-in for the proxy starts a session and is killed."""
    script = (
        "import asyncio, json, os, sys\n"
        "from tests.user_sessions.studio import Studio, make_spec\n"
        "from pathlib import Path\n"
        "async def main():\n"
        f"    studio = Studio(Path({str(place)!r}))\n"
        "    poll = await studio.spawner.start(make_spec(studio.settings, 'ann'))\n"
        "    print(poll.session_id, poll.pid, flush=True)\n"
        "    os.kill(os.getpid(), 9)\n"
        "asyncio.run(main())\n"
    )
    command = [sys.executable, "-W", "ignore", "-c", script]
    ended = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    session_id, pid = ended.stdout.split()
    assert start_time(int(pid)) is not None
    poll = await studio.spawner.poll(session_id)
    assert (poll.state, poll.pid) == ("running", int(pid))


async def test_the_hosts_own_log_is_trimmed_when_it_starts(studio: Studio) -> None:
    await studio.host.stop()
    with studio.host.log.open("ab") as log:
        log.write(b"an old line\n" * (LOG_BYTES // 12 + 1))
    await studio.host.ensure()
    assert studio.host.log.stat().st_size < LOG_BYTES
    assert "session host ready" in studio.host.log.read_text()
