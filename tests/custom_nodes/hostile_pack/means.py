"""What attempts share: system calls, and answers made of what came of them. Standard library only."""

import ctypes
import errno
import os
import struct
from pathlib import Path
from typing import Any

Facts = dict[str, Any]
libc = ctypes.CDLL(None, use_errno=True)
MIB = 1024 * 1024
CALLS = {"x86_64": (310, 272, 425, 438), "aarch64": (270, 97, 425, 438)}  # process_vm_readv, unshare, io_uring, getfd
READ_MEMORY, UNSHARE, URING, GETFD = CALLS.get(os.uname().machine, CALLS["x86_64"])
PTRACE_ATTACH, PTRACE_DETACH = 16, 17
NEW_USER, NEW_NS = 0x10000000, 0x00020000
MPTCP = 262
FAST_OPEN = 0x20000000


def names(folder: str | Path) -> list[str]:
    with os.scandir(folder) as entries:
        return [entry.name for entry in entries]


def changed(worked: bool) -> bool:
    if not worked:
        raise OSError(errno.EPERM, "it was said to work, and nothing changed")
    return True


def changed_by(code: int) -> bool:
    if code:
        raise OSError(code, os.strerror(code))
    return True


def called(result: int) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def write_and_remove(path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(struct.pack("I", 1))
    path.unlink()


def in_a_child(act: Any) -> bool:
    pid = os.fork()
    if pid == 0:
        code = 0
        try:
            act()
        except OSError as error:
            code = error.errno or 255
        os._exit(code)
    return changed_by(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
