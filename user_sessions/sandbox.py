"""What one session may touch, and the moment a fresh child gives everything else up.

`rules` is pure; `confine` applies the layers in the only order that works. A layer the kernel lacks is left out with
one warning by whoever starts sessions, never silently replaced; `layers.py` tells them.
"""

import ctypes
import functools
import os
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import proxy
import user_sessions
from proxy.base.errors import ConfigError
from user_sessions import seccomp
from user_sessions.confinement import Confinement
from user_sessions.landlock import READ, WRITE, Access, Rule, abi, libc, restrict
from user_sessions.privileges import become
from user_sessions.runtime import SessionSpec

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_NAME, PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 1, 4, 15, 36, 38
CAPABILITY_VERSION_3 = 0x20080522

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
OWN_NODES = "custom_nodes"
"""A user's own custom nodes, beside their four directories: theirs to run, the administrator's to put there."""


def rules(spec: SessionSpec, confinement: Confinement) -> list[Rule]:
    """The paths of one session, widest first for the reader; the kernel knows no order."""
    execute = Access.EXECUTE if confinement.programs else Access.NONE
    system = [Path(name) for name in SYSTEM + (SYSTEM_WITH_NETWORK if confinement.network else ())]
    made = [Rule(path, READ | execute) for path in (*python_paths(), *system, *confinement.readable)]
    if confinement.programs:
        here = {Path(sys.executable).parent, Path(sys.executable).resolve().parent}
        made += [Rule(path, READ | execute) for path in (*map(Path, PROGRAMS), *sorted(here))]
    own_nodes = spec.directories.user.parent / OWN_NODES
    made += [Rule(path, READ) for path in (*followed(spec.public), spec.log, own_nodes)]
    made.append(Rule(Path("/dev/null"), Access.READ_FILE | Access.WRITE_FILE))
    made += [Rule(path, WRITE, required=True) for path in spec.directories.all()]
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


def confine(spec: SessionSpec, confinement: Confinement) -> None:
    """Close the sandbox around this process for good. Raises OSError when a layer the kernel has refuses."""
    owner = owner_of(spec)
    if confinement.sandbox:
        prctl(PR_SET_NO_NEW_PRIVS, 1)
        if abi():
            restrict(rules(spec, confinement), confinement.ports if confinement.network else ())
    if owner is not None:
        become(*owner)
    if not confinement.sandbox:
        return
    prctl(PR_SET_DUMPABLE, 0)  # no ptrace, no /proc/<pid>/mem for others of our uid, no core
    _drop_capabilities()  # root's, and whatever a service manager granted
    if seccomp.supported():
        seccomp.install(network=confinement.network)


def owner_of(spec: SessionSpec) -> tuple[int, int] | None:
    """User and group a session must become: the owner of its directories. None when it is whoever we are already.
    Raises PermissionError for directories of several owners."""
    found = {(status.st_uid, status.st_gid) for path in spec.directories.all() for status in [path.lstat()]}
    if os.geteuid() != 0 or {uid for uid, _ in found} == {0}:
        return None
    if len(found) != 1:
        raise PermissionError(f"The directories of {spec.user} belong to several users. Restart the session.")
    return found.pop()


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
