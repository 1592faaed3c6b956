"""A session host whose sessions cannot be started: it says so at once, tries less and less often, and can be mended."""

import logging
from pathlib import Path

import pytest

from proxy.base.errors import Unavailable
from proxy.base.log_file import LOG_BYTES, LOG_KEPT_BYTES
from proxy.base.tasks import Tasks
from proxy.doctor.host import see_host
from proxy.health.readiness import BROKEN as NOT_READY
from proxy.health.readiness import Readiness
from proxy.verbs import session_refresh
from proxy.verbs.session_refresh import refresh_sessions
from tests.user_sessions.comfyui.double import add_pack, make_double
from tests.user_sessions.comfyui.studio import double_studio
from tests.user_sessions.probe_runtime import BREAK
from tests.user_sessions.studio import FRAGILE, Studio, make_spec, open_studio, refreshed, until
from user_sessions.reconcile import Reconciler
from user_sessions.zygotes import BACKOFF_LIMIT_S, BACKOFF_S, next_wait_s


def reconciler(studio: Studio) -> Reconciler:
    """Of the studio's own sessions."""
    return Reconciler(studio.settings, studio.db, studio.spawner, studio.sessions, studio.tasks)


async def test_it_is_told_everywhere_until_it_is_mended(
    place: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(BREAK, str(place / "break"))
    (place / "break").touch()
    async with open_studio(place, FRAGILE) as studio:

        async def broken() -> bool:
            return bool((await studio.spawner.report()).broken)

        await until(broken)
        look, ready = (
            reconciler(studio),
            Readiness(
                studio.db,
                place,
                free_mb=0,
                spawner=studio.spawner,
                tasks=Tasks(),
                clock=iter(range(0, 100, 10)).__next__,
            ),
        )
        with caplog.at_level(logging.INFO):
            await look.turn(set)
            await look.turn(set)
        assert [r.getMessage() for r in caplog.records].count("sessions cannot be started") == 1
        assert "broken custom node" in studio.sessions.report.broken
        assert await ready.problems() == [NOT_READY]
        found, _ = await see_host(studio.settings)
        assert any(finding.bad and "broken custom node" in finding.detail for finding in found)
        with pytest.raises(Unavailable, match="broken custom node"):
            await studio.spawner.start(make_spec(studio.settings, "ann"))

        with pytest.raises(Unavailable, match=r"as before it, none can be started\. .*broken custom node"):
            await refresh_sessions(studio.settings)

        (place / "break").unlink()
        assert (await refreshed(studio.spawner)).state == "done"
        await look.turn(set)
        assert studio.sessions.report.broken == "" and await ready.problems() == []
        assert (await studio.spawner.start(make_spec(studio.settings, "bob"))).ready


def test_a_zygote_that_never_gets_warm_is_tried_at_last_every_few_minutes() -> None:
    wait_s, waits = BACKOFF_S, 0
    while wait_s < BACKOFF_LIMIT_S:
        wait_s, waits = next_wait_s(wait_s), waits + 1
    assert waits < 8 and next_wait_s(wait_s) == BACKOFF_LIMIT_S >= 60


async def test_the_hosts_log_is_cut_while_it_runs(studio: Studio) -> None:
    with studio.host.log.open("ab") as log:
        for _ in range(LOG_BYTES // 1024 + 1):
            log.write(b"x" * 1023 + b"\n")

    async def short() -> bool:
        return studio.host.log.stat().st_size <= LOG_KEPT_BYTES + 65_536

    await until(short)


async def test_the_command_waits_for_a_refresh_as_long_as_the_host_does(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(session_refresh, "MARGIN_S", 0.0)
    double = make_double(place / "ComfyUI")
    add_pack(double / "custom_nodes", "slow_one", "import time\ntime.sleep(1)")
    async with double_studio(place, double, session_start_timeout_s=0.2) as studio:
        assert "Sessions start afresh" in await refresh_sessions(studio.settings)
        told = capsys.readouterr().err
        assert told.count("Warming a fresh one") == 1 and "at most 600 s" in told
