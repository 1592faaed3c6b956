"""What confines a session started here and now, one layer each, as `doctor` and the session host's health show it."""

from collections.abc import Sequence
from dataclasses import dataclass

from user_sessions import seccomp
from user_sessions.confinement import Confinement
from user_sessions.landlock import abi

TCP_ABI, SIGNALS_ABI = 4, 6


@dataclass(frozen=True)
class Layer:
    """One layer of the sandbox."""

    name: str
    active: bool
    detail: str


def layers(confinement: Confinement, no_ids: Sequence[str] = ("not looked at",)) -> list[Layer]:
    """Every layer and why it is missing; `no_ids` says why sessions share a user id, nothing when they do not."""
    limits = [_ids(no_ids), *_limits(confinement, own_id=not no_ids)]
    if not confinement.sandbox:
        return [Layer("sandbox", False, "switched off by the setting `sandbox`"), *limits]
    version = abi()
    known = seccomp.supported()
    return [
        Layer("landlock", version > 0, f"ABI {version}" if version else "this kernel has none: files are not confined"),
        _tcp(version, confinement),
        Layer(
            "landlock signals",
            version >= SIGNALS_ABI,
            "sessions signal their own processes only"
            if version >= SIGNALS_ABI
            else "needs ABI 6: sessions can signal others of their user id",
        ),
        Layer("seccomp", known, "system calls filtered" if known else "no filter is known for this machine"),
        Layer("no_new_privs", True, "set-user-id programs gain nothing"),
        *limits,
    ]


def _tcp(version: int, confinement: Confinement) -> Layer:
    if not confinement.network:
        if version < TCP_ABI:
            return Layer("landlock tcp", False, "needs ABI 4; seccomp refuses connections still")
        return Layer("landlock tcp", True, "no TCP connections in or out")
    ports = ", ".join(map(str, confinement.ports)) or "none"
    if version < TCP_ABI:
        return Layer("landlock tcp", False, "needs ABI 4: sessions can connect to the proxy, to backends, to anything")
    return Layer("landlock tcp", True, f"TCP to ports {ports} of any address, backends there included; none in, no UDP")


def _ids(no_ids: Sequence[str]) -> Layer:
    if no_ids:
        return Layer("user id per session", False, f"sessions share the server's; {'; '.join(no_ids)}")
    return Layer("user id per session", True, "each user's session and files have their own")


def _limits(confinement: Confinement, *, own_id: bool) -> list[Layer]:
    found = confinement.controllers
    counted = own_id or "pids" in found
    memory = f"{confinement.memory_mb} MiB per session, counted by its control group"
    space = f"{confinement.memory_mb} MiB of address space per process: a session with several has more"
    ends = "its control group, process group and orphans" if confinement.cgroup else "its process group and orphans"
    return [
        Layer("limit of memory", True, memory if "memory" in found else space),
        Layer(
            "limit of processes",
            counted,
            _counted(confinement, own_id=own_id),
        ),
        _processors(confinement),
        Layer("end of what a session started", True, ends),
    ]


def _counted(confinement: Confinement, *, own_id: bool) -> str:
    if "pids" in confinement.controllers:
        return f"{confinement.processes} per session, counted by its control group"
    if own_id:
        return f"{confinement.processes} per session, counted by its user id"
    if confinement.cgroup:
        return "needs the pids controller, which the control group of sessions lacks, or a user id per session"
    return "needs a control group, or a user id per session"


def _processors(confinement: Confinement) -> Layer:
    name, percent = "limit of processors", confinement.cpu_percent
    if not percent:
        return Layer(name, True, "none asked for; sessions have a lower priority than the server")
    if "cpu" in confinement.controllers:
        return Layer(name, True, f"{percent} % of one per session, by its control group")
    return Layer(name, False, "needs a control group (Delegate=yes in a systemd unit): sessions have a lower priority")
