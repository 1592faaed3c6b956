"""What `doctor` says of the sandbox, for kernels old and new."""

import pytest

from user_sessions.confinement import Confinement
from user_sessions.layers import Layer, layers


def by_name(confinement: Confinement) -> dict[str, Layer]:
    """The layers by their names."""
    return {layer.name: layer for layer in layers(confinement)}


@pytest.mark.parametrize(
    ("abi", "network", "tcp", "signals"),
    [
        (0, False, False, False),
        (3, False, False, False),
        (4, False, True, False),
        (6, False, True, True),
        (3, True, False, False),
        (6, True, True, True),
    ],
)
def test_an_active_layer_says_what_it_does_and_a_missing_one_what_it_needs(
    monkeypatch: pytest.MonkeyPatch, abi: int, network: bool, tcp: bool, signals: bool
) -> None:
    monkeypatch.setattr("user_sessions.layers.abi", lambda: abi)
    found = by_name(Confinement(network=network))
    active = {"landlock": abi > 0, "landlock tcp": tcp, "landlock signals": signals}
    for name, expected in active.items():
        assert found[name].active is expected
        assert ("needs" in found[name].detail or "has none" in found[name].detail) is not expected


@pytest.mark.parametrize(
    ("controllers", "cgroup", "no_ids", "says"),
    [
        (("memory", "pids"), "/group", ("x",), "counted by its control group"),
        (("memory",), "/group", ("x",), "needs the pids controller"),
        (("memory",), "/group", (), "counted by its user id"),
        ((), "", ("x",), "needs a control group"),
    ],
)
def test_what_counts_processes(controllers: tuple[str, ...], cgroup: str, no_ids: tuple[str, ...], says: str) -> None:
    found = layers(Confinement(controllers=controllers, cgroup=cgroup), no_ids)
    (layer,) = [layer for layer in found if layer.name == "limit of processes"]
    assert says in layer.detail and layer.active is ("needs" not in says)


def test_a_sandbox_that_is_off_says_who_did_it() -> None:
    found = layers(Confinement(sandbox=False))
    assert not found[0].active and "`sandbox`" in found[0].detail
    assert not {"landlock", "seccomp"} & {layer.name for layer in found}
