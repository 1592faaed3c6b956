"""The operator's choices about sessions: from settings to a session host's flags and back, and put in force at a start.

`Policy` is a value; `enforce` is the one place that decides about user ids and control groups, for session hosts and
for proxies that start sessions themselves.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from proxy.base.logs import events
from user_sessions import cgroup, seccomp
from user_sessions.confinement import Confinement
from user_sessions.landlock import abi
from user_sessions.layers import TCP_ABI, Layer, layers
from user_sessions.runtimes import COMFYUI
from user_sessions.sandbox import python_paths
from user_sessions.uid_policy import decide, why_not
from user_sessions.uids import Range

if TYPE_CHECKING:  # a session host has flags, and is to start without loading the settings
    from proxy.base.settings import Settings

log = events(__name__)


@dataclass(frozen=True)
class Policy:
    """What was asked for. `uids` None: one user id for all sessions."""

    confinement: Confinement
    uids: Range | None
    cgroup: bool

    def with_readable(self, paths: tuple[Path, ...]) -> "Policy":
        """Besides what the operator names, what the runtime needs."""
        confinement = replace(self.confinement, readable=(*paths, *self.confinement.readable))
        return replace(self, confinement=confinement)


def policy_of(settings: "Settings", runtime: str) -> Policy:
    """What the settings ask for that runtime; the runtime's own readable paths are not in it."""
    real = runtime == COMFYUI
    network = {"auto": real and keeps_to_ports(), "on": True, "off": False}[settings.session_network]
    confinement = Confinement(
        sandbox=settings.sandbox == "auto",
        memory_mb=settings.session_memory_mb,
        file_mb=settings.session_file_mb,
        processes=settings.session_processes,
        cpu_percent=settings.session_cpu_percent,
        readable=tuple(path.absolute() for path in settings.session_readable),
        network=network,
        ports=tuple(port for port in settings.session_network_ports if port != settings.port) if network else (),
        programs={"auto": real, "on": True, "off": False}[settings.session_programs],
    )
    wanted = Range(settings.session_uid_first, settings.session_uid_count)
    return Policy(
        confinement,
        wanted if settings.session_uids == "auto" else None,
        settings.session_cgroup == "auto",
    )


def keeps_to_ports() -> bool:
    """Whether this machine can confine a session with network to some ports."""
    return abi() >= TCP_ABI and seccomp.supported()


def open_ports(confinement: Confinement) -> frozenset[int]:
    """Those that confined sessions may connect to; where nothing confines them the word has no meaning."""
    return frozenset(confinement.ports if confinement.network and confinement.sandbox else ())


@dataclass(frozen=True)
class InForce:
    """How sessions are confined, what that amounts to, and the control group to remove in the end."""

    confinement: Confinement
    layers: list[Layer]
    group: cgroup.Held | None


def enforce(policy: Policy, data_dir: Path, also: Sequence[Path] = ()) -> InForce:
    """Put it in force for sessions started from now on.

    Other user ids must be able to read `also`. Raises Unavailable or DiskFull when the data directory resists.
    """
    no_ids = decide(data_dir, policy.uids, _read_by_sessions(policy.confinement, also))
    confinement = policy.confinement
    group = _group(data_dir) if policy.cgroup else None
    if group is not None:
        confinement = replace(confinement, cgroup=str(group.path), controllers=group.controllers)
    found = layers(confinement, no_ids)
    if not found[0].active and found[0].name != "user id per session":
        log.warning("sessions are not confined", reason=found[0].detail)
    return InForce(confinement, found, group)


def foreseen(policy: Policy, data_dir: Path, also: Sequence[Path] = ()) -> list[Layer]:
    """What `enforce` would amount to; changes nothing."""
    no_ids = why_not(data_dir, policy.uids, _read_by_sessions(policy.confinement, also))
    base = cgroup.find()[0] if policy.cgroup else None
    confinement = policy.confinement
    if base is not None:
        confinement = replace(confinement, cgroup=str(base), controllers=cgroup.offered(base))
    return layers(confinement, no_ids)


def arguments(policy: Policy) -> list[str]:
    """As flags of a session host."""
    confinement = policy.confinement
    values: list[tuple[str, object]] = [
        ("sandbox", "auto" if confinement.sandbox else "off"),
        ("memory-mb", confinement.memory_mb),
        ("file-mb", confinement.file_mb),
        ("processes", confinement.processes),
        ("cpu-percent", confinement.cpu_percent),
        ("cgroup", "auto" if policy.cgroup else "off"),
        *(("readable", path) for path in confinement.readable),
        *(("network-port", port) for port in confinement.ports),
    ]
    if policy.uids is not None:
        values += [("uid-first", policy.uids.first), ("uid-count", policy.uids.count)]
    switches = [f"--{name}" for name in ("network", "programs") if getattr(confinement, name)]
    return [word for name, value in values for word in (f"--{name}", str(value))] + switches


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Those flags."""
    add = parser.add_argument
    known = Confinement()
    add("--sandbox", choices=("auto", "off"), default="auto", help="confine sessions or not")
    add("--memory-mb", type=int, default=known.memory_mb, help="memory of a session")
    add("--file-mb", type=int, default=known.file_mb, help="largest file a session may write")
    add("--processes", type=int, default=known.processes, help="processes and threads of a session")
    add("--cpu-percent", type=int, default=known.cpu_percent, help="percent of one processor for a session; 0 for any")
    add("--cgroup", choices=("auto", "off"), default="auto", help="make control groups for sessions where we may")
    add("--uid-first", type=int, help="first user id of sessions; without it they share ours")
    add("--uid-count", type=int, default=100_000, help="how many user ids there are for sessions")
    add("--readable", type=Path, action="append", default=[], help="further path that sessions may read; repeatable")
    add("--network", action="store_true", help="let sessions open TCP connections to --network-port")
    add("--network-port", type=int, action="append", default=[], help="port they may connect to; repeatable")
    add("--programs", action="store_true", help="let sessions start installed programs")


def from_arguments(options: argparse.Namespace, readable: tuple[Path, ...]) -> Policy:
    """What those flags say; `readable` is what the runtime needs."""
    confinement = Confinement(
        sandbox=options.sandbox == "auto",
        memory_mb=options.memory_mb,
        file_mb=options.file_mb,
        processes=options.processes,
        cpu_percent=options.cpu_percent,
        readable=readable + tuple(path.resolve() for path in options.readable),
        network=options.network,
        ports=tuple(options.network_port),
        programs=options.programs,
    )
    wanted = None if options.uid_first is None else Range(options.uid_first, options.uid_count)
    return Policy(confinement, wanted, options.cgroup == "auto")


def python_of(options: Mapping[str, str]) -> list[Path]:
    """The installation of the Python that a runtime brings itself, if it does."""
    given = options.get("python")
    if given is None:
        return []
    python = Path(given)
    return [python, python.parent.parent / "lib", python.resolve().parent.parent / "lib"]


def _read_by_sessions(confinement: Confinement, also: Sequence[Path]) -> list[Path]:
    return [*python_paths(), *also, *confinement.readable]


def _group(data_dir: Path) -> cgroup.Held | None:
    base, reason = cgroup.find()
    if base is None:
        log.info("no control groups for sessions", reason=reason)
        return None
    try:
        return cgroup.prepare(base, data_dir)
    except OSError as error:
        log.warning("no control groups for sessions", reason=str(error))
        return None
