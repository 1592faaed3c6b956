"""What the doctor makes of a session host that was started with other settings than its own."""

from pathlib import Path

import pytest

from proxy.doctor.finding import OK
from proxy.doctor.host import see_host
from proxy.doctor.sandbox import sandbox
from tests.user_sessions.probe_runtime import BREAK
from tests.user_sessions.studio import FRAGILE, open_studio, short_directory


async def test_a_running_host_is_judged_as_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    with short_directory() as place:
        monkeypatch.setenv(BREAK, str(place / "break"))
        async with open_studio(place, FRAGILE, session_network="on", session_network_ports=[8443]) as studio:
            given = studio.settings.model_copy(update={"session_network": "off", "session_memory_mb": 77})
            found, host = await see_host(given)
            assert host is not None and host.runtime == FRAGILE and host.ports == {8443}
            assert any(FRAGILE in finding.detail and finding.mark != OK for finding in found)
            lines = [finding.detail for finding in sandbox(given, host)]
            assert any("TCP to ports 8443" in line for line in lines) and not any("77 MiB" in line for line in lines)


async def test_no_host_is_no_finding(tmp_path: Path) -> None:
    with short_directory() as place:
        async with open_studio(place) as studio:
            settings = studio.settings
        assert await see_host(settings) == ([], None)
