"""Sessions with network: TCP to the ports that were named, names asked by TCP, nothing else."""

import argparse
import os
import shutil
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.user_sessions.studio import ask, make_settings, make_spec, open_studio
from tests.user_sessions.tcp_names import ADDRESS
from user_sessions import landlock, seccomp
from user_sessions.confinement import Confinement
from user_sessions.policy import Policy, add_arguments, arguments, from_arguments, policy_of
from user_sessions.uids import Range

DENIED = {"EACCES", "EPERM"}
whole = pytest.mark.skipif(
    landlock.abi() < 4 or not seccomp.supported(), reason="THIS KERNEL CANNOT CONFINE SESSIONS TO SOME PORTS"
)


@whole
async def test_only_the_named_ports_are_within_reach(place: Path) -> None:
    with ExitStack() as stack:
        allowed, other = (stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(2))
        port = allowed.getsockname()[1]
        async with open_studio(place, session_network="on", session_network_ports=[port]) as studio:
            spec = make_spec(studio.settings, "ann")
            await studio.spawner.start(spec)
            assert await ask(spec, "connect_tcp", port=port) == {"ok": True}
            assert (await ask(spec, "connect_tcp", port=other.getsockname()[1]))["error"] in DENIED
            assert (await ask(spec, "connect_unix", path=str(spec.socket)))["error"] in DENIED
            found = await ask(spec, "look_up", name="localhost")
            assert "127.0.0.1" in found["ok"]
            assert (await ask(spec, "environment"))["ok"]["RES_OPTIONS"] == "use-vc"


def test_network_and_programs_are_for_the_runtime_that_needs_them(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("user_sessions.policy.keeps_to_ports", lambda: True)
    settings = make_settings(place, port=443)
    light, comfyui = policy_of(settings, "light").confinement, policy_of(settings, "comfyui").confinement
    assert (light.network, light.ports, light.programs) == (False, (), False)
    assert (comfyui.network, comfyui.ports, comfyui.programs) == (True, (53, 80), True)  # never the server's own port
    monkeypatch.setattr("user_sessions.policy.keeps_to_ports", lambda: False)
    assert not policy_of(settings, "comfyui").confinement.network
    forced = make_settings(place, session_network="on", session_programs="off")
    assert policy_of(forced, "comfyui").confinement.network and not policy_of(forced, "comfyui").confinement.programs


def parsed(policy: Policy) -> Policy:
    """Through the flags of a session host."""
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return from_arguments(parser.parse_args(arguments(policy)), ())


@pytest.mark.parametrize(
    "policy",
    [
        Policy(Confinement(), None, cgroup=False),
        Policy(
            Confinement(
                sandbox=False,
                memory_mb=100,
                file_mb=3,
                processes=17,
                cpu_percent=50,
                readable=(Path("/srv/assets"), Path("/srv/more")),
                network=True,
                ports=(53, 8443),
                programs=True,
            ),
            Range(70_000, 500),
            cgroup=True,
        ),
    ],
)
def test_what_was_asked_for_survives_the_journey(policy: Policy) -> None:
    assert parsed(policy) == policy
    assert Confinement.from_json(policy.confinement.to_json()) == policy.confinement


@whole
@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("ip"), reason="NO NAMESPACES OF OUR OWN: NOT ROOT, OR NO ip")
def test_names_are_asked_by_tcp() -> None:
    """A session can send no datagram, so a name server that never hears one has to do."""
    command = ["unshare", "-mn", sys.executable, "-m", "tests.user_sessions.tcp_names"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.strip() == f"['{ADDRESS}']", done.stderr
