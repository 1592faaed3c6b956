"""What one session may touch, and the moment a fresh child gives everything else up.

`rules` and `Confinement` are pure; `confine` applies the layers in the only order that works; `layers` reports what
this kernel offers. A layer the kernel lacks is left out with one warning by whoever starts sessions, never silently
replaced. Different user ids per session are not made here yet: all sessions share the uid they were started with.
"""

import ctypes
import functools
import os
import resource
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import proxy
import user_sessions
from proxy.base.errors import ConfigError
from user_sessions import seccomp
from user_sessions.landlock import READ, WRITE, Access, Rule, abi, libc, restrict
from user_sessions.runtime import SessionSpec

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_NAME, PR_SET_NO_NEW_PRIVS = 1, 4, 15, 38
CAPABILITY_VERSION_3 = 0x20080522
OPEN_FILES = 1024
MIB = 1024 * 1024

SYSTEM = (
    "/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache", "/etc/ssl/openssl.cnf", "/etc/localtime",
    "/usr/share/zoneinfo", "/etc/mime.types", "/dev/urandom", "/dev/random",
    "/proc/meminfo", "/proc/cpuinfo", "/proc/stat", "/proc/self",
)  # fmt: skip
SYSTEM_WITH_NETWORK = (
    "/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/host.conf", "/etc/gai.conf",
    "/etc/ssl/certs", "/usr/share/ca-certificates",
)  # fmt: skip
PROGRAMS = ("/bin", "/usr/bin", "/usr/local/bin")
LINK_DEPTH = 2


@dataclass(frozen=True)
class Confinement:
    """How sessions are confined; the operator's choice and the runtime's needs, the same for every session."""

    sandbox: bool = True
    memory_mb: int = 4096
    file_mb: int = 8192
    readable: tuple[Path, ...] = ()
    network: bool = False
    programs: bool = False

    def to_json(self) -> dict[str, Any]:
        """The form handed to the zygote."""
        return asdict(self) | {"readable": [str(path) for path in self.readable]}

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> "Confinement":
        """Read that form, which only our own processes write."""
        return Confinement(**(dict(data) | {"readable": tuple(Path(path) for path in data["readable"])}))


@dataclass(frozen=True)
class Layer:
    """One layer of the sandbox as `doctor` shows it."""

    name: str
    active: bool
    detail: str


def rules(spec: SessionSpec, confinement: Confinement) -> list[Rule]:
    """The paths of one session, widest first for the reader; the kernel knows no order."""
    execute = Access.EXECUTE if confinement.programs else Access.NONE
    system = [Path(name) for name in SYSTEM + (SYSTEM_WITH_NETWORK if confinement.network else ())]
    made = [Rule(path, READ | execute) for path in (*python_paths(), *system, *confinement.readable)]
    if confinement.programs:
        made += [Rule(Path(name), READ | execute) for name in PROGRAMS]
    made += [Rule(path, READ) for path in (*followed(spec.public), spec.log)]
    made.append(Rule(Path("/dev/null"), Access.READ_FILE | Access.WRITE_FILE))
    made += [Rule(path, WRITE, required=True) for path in (*spec.directories.all(), spec.socket.parent)]
    return made


@functools.cache
def python_paths() -> tuple[Path, ...]:
    """The running Python's libraries and our own packages, not the folder these lie in: the data may be there too."""
    found = {Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    found |= {Path(path) for path in sys.path if path.endswith(("-packages", "lib-dynload"))}
    found |= {Path(package.__path__[0]) for package in (proxy, user_sessions)}
    return tuple(sorted({path for one in found for path in (one, one.resolve())}))


def followed(public: Path) -> list[Path]:
    """`public` and what the administrator's links in it point at, two levels deep: models often live elsewhere."""
    return [public, *_links(public, LINK_DEPTH)]


def check(data_dir: Path, confinement: Confinement) -> None:
    """Raise ConfigError when the data directory lies inside something every session may read."""
    data = data_dir.resolve()
    for path in (*python_paths(), *(Path(name) for name in SYSTEM), *confinement.readable):
        if confinement.sandbox and data.is_relative_to(path.resolve()):
            raise ConfigError(f"The data directory {data} lies in {path}, which sessions may read. Move it elsewhere.")


def limit(confinement: Confinement) -> None:
    """Limits that hold without a sandbox too: no core files, descriptors, memory, file size.

    The number of processes is not limited: the kernel counts it per user id, which sessions share.
    """
    for name, value in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, OPEN_FILES),
        (resource.RLIMIT_AS, confinement.memory_mb * MIB),
        (resource.RLIMIT_FSIZE, confinement.file_mb * MIB),
    ):
        hard = resource.getrlimit(name)[1]
        allowed = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(name, (allowed, allowed))


def confine(spec: SessionSpec, confinement: Confinement) -> None:
    """Close the sandbox around this process for good. Raises OSError when a layer the kernel has refuses."""
    if not confinement.sandbox:
        return
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    prctl(PR_SET_DUMPABLE, 0)  # no ptrace, no /proc/<pid>/mem for others of our uid, no core
    _drop_capabilities()  # root's, and whatever a service manager granted
    if abi():
        restrict(rules(spec, confinement), network=confinement.network)
    if seccomp.supported():
        seccomp.install(network=confinement.network)


def layers(confinement: Confinement) -> list[Layer]:
    """What confines a session started here and now."""
    if not confinement.sandbox:
        return [Layer("sandbox", False, "switched off by the setting `sandbox`")]
    version = abi()
    known = seccomp.supported()
    return [
        Layer("landlock", version > 0, f"ABI {version}" if version else "this kernel has none: files are not confined"),
        _tcp(version, confinement),
        Layer(
            "landlock signals",
            version >= 6,
            "sessions signal their own processes only" if version >= 6 else "needs ABI 6: sessions can signal others",
        ),
        Layer("seccomp", known, "system calls filtered" if known else "no filter is known for this machine"),
        Layer("no_new_privs", True, "set-user-id programs gain nothing"),
        Layer("user id per session", False, "sessions share the user id of the session host"),
    ]


def _tcp(version: int, confinement: Confinement) -> Layer:
    if confinement.network:
        return Layer("landlock tcp", False, "this runtime needs network")
    if version < 4:
        return Layer("landlock tcp", False, "needs ABI 4; seccomp refuses connections still")
    return Layer("landlock tcp", True, "no TCP connections in or out")


def prctl(option: int, value: int | bytes) -> None:
    """The system call. Raises OSError."""
    argument = ctypes.c_char_p(value) if isinstance(value, bytes) else ctypes.c_ulong(value)
    if libc.prctl(option, argument, 0, 0, 0) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"prctl {option}: {os.strerror(code)}")


def _drop_capabilities() -> None:
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)
    if libc.capset(header, (ctypes.c_uint32 * 6)()) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"capset: {os.strerror(code)}")


def _links(folder: Path, depth: int) -> Iterator[Path]:
    if depth == 0:
        return
    try:
        entries = list(os.scandir(folder))
    except OSError:
        return
    for entry in entries:
        if entry.is_symlink():
            yield Path(entry.path).resolve()
        elif entry.is_dir():
            yield from _links(Path(entry.path), depth - 1)
