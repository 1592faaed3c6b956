"""What the doctor says of sessions' confinement: layers, and backends within a session's reach."""

from pathlib import Path

import pytest

from backend_pool.model import Backend
from proxy.base.settings import Settings
from proxy.doctor.finding import OK
from proxy.doctor.sandbox import sandbox, within_reach

URLS = ["http://gpu-1:8188", "https://gpu-2", "http://gpu-3:80", "http://gpu-4:8443"]


def names_within_reach(settings: Settings) -> list[str]:
    """Which of them the doctor warns of."""
    backends = [Backend(name=url, url=url, source="settings", created_ms=0) for url in URLS]
    found = within_reach(settings, backends)
    return [url for url in URLS if any(f" {url} " in finding.detail for finding in found)]


def test_backends_on_ports_that_sessions_may_use_are_named(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, session_network="on")
    assert names_within_reach(settings) == ["https://gpu-2", "http://gpu-3:80"]
    narrower = Settings(data_dir=tmp_path, session_network="on", session_network_ports=[8443])
    assert names_within_reach(narrower) == ["http://gpu-4:8443"]
    assert names_within_reach(Settings(data_dir=tmp_path)) == []


def test_every_layer_has_a_line_and_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = {finding.detail.removeprefix("no ").partition(":")[0]: finding for finding in sandbox(Settings())}
    assert {"landlock", "seccomp", "user id per session", "limit of memory", "limit of processes"} <= lines.keys()
    monkeypatch.setattr("user_sessions.policy.keeps_to_ports", lambda: False)
    monkeypatch.setattr("user_sessions.layers.abi", lambda: 3)
    old = list(sandbox(Settings(data_dir=tmp_path, runtime="comfyui", session_uids="off")))
    missing = [finding.detail for finding in old if finding.mark != OK]
    assert any("session_network" in detail for detail in missing)
    assert any("`session_uids`" in detail for detail in missing)
    assert any("needs ABI 4" in detail for detail in missing)
    assert not tmp_path.joinpath("session-uids.on").exists()
