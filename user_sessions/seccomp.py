"""A seccomp filter for what Landlock does not judge: other processes of our user, sockets, path-based chmod.

`build` is pure (rules in, BPF program out), `install` the one system call. Sessions share a user id unless the operator
says otherwise, so each call here is one by which a session could hurt its neighbours or the proxy.
"""

import ctypes
import errno
import platform
import socket
import stat
import struct
from collections.abc import Sequence
from dataclasses import dataclass

PR_SET_SECCOMP, MODE_FILTER = 22, 2
ALLOW, ERRNO = 0x7FFF0000, 0x00050000
LOAD, JUMP_EQUAL, JUMP_GREATER_EQUAL, AND, RETURN = 0x20, 0x15, 0x35, 0x54, 0x06
NUMBER_AT, MACHINE_AT, ARGUMENTS_AT = 0, 4, 16
X32_BIT = 0x40000000
NEW_NAMESPACES = 0x7E020000 | 0x80  # CLONE_NEW*: a user namespace would hand out capabilities again

MACHINES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}

# name: number on x86_64, on aarch64 (0 where it does not exist)
NUMBERS = {
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "kcmp": (312, 272),
    "pidfd_getfd": (438, 438), "process_madvise": (440, 440), "process_mrelease": (448, 448),
    "io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "io_uring_register": (427, 427),
    "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282),
    "keyctl": (250, 219), "add_key": (248, 217), "request_key": (249, 218),
    "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51),
    "unshare": (272, 97), "setns": (308, 268), "open_by_handle_at": (304, 265),
    "init_module": (175, 105), "finit_module": (313, 273), "delete_module": (176, 106),
    "inotify_add_watch": (254, 27), "fanotify_init": (300, 262),
    "kexec_load": (246, 104), "reboot": (169, 142), "migrate_pages": (256, 238), "move_pages": (279, 239),
    "mknod": (133, 0), "mknodat": (259, 33),
    "chmod": (90, 0), "fchmodat": (268, 53), "fchmodat2": (452, 452),
    "prlimit64": (302, 261), "sched_setaffinity": (203, 122), "sched_setscheduler": (144, 119),
    "sched_setparam": (142, 118), "sched_setattr": (314, 274), "setpriority": (141, 140), "ioprio_set": (251, 30),
    "clone": (56, 220), "clone3": (435, 435), "connect": (42, 203), "socket": (41, 198), "socketpair": (53, 199),
    "bind": (49, 200), "listen": (50, 201), "sendto": (44, 206), "sendmsg": (46, 211), "sendmmsg": (307, 269),
    "utime": (132, 0), "utimes": (235, 0), "futimesat": (261, 0), "utimensat": (280, 88),
    "setxattr": (188, 5), "lsetxattr": (189, 6), "removexattr": (197, 14), "lremovexattr": (198, 15),
    "setxattrat": (463, 463), "removexattrat": (466, 466), "syslog": (103, 116),
    "shmget": (29, 194), "shmat": (30, 196), "shmctl": (31, 195), "semget": (64, 190), "semctl": (66, 191),
    "semop": (65, 193), "semtimedop": (220, 192), "msgget": (68, 186), "msgctl": (71, 187), "msgsnd": (69, 189),
    "msgrcv": (70, 188), "mq_open": (240, 180), "mq_unlink": (241, 181),
}  # fmt: skip

REFUSED = (
    "ptrace", "process_vm_readv", "process_vm_writev", "kcmp", "pidfd_getfd", "process_madvise", "process_mrelease",
    "io_uring_setup", "io_uring_enter", "io_uring_register",  # would connect and open behind this filter's back
    "bpf", "perf_event_open", "userfaultfd", "keyctl", "add_key", "request_key",
    "mount", "umount2", "pivot_root", "chroot", "unshare", "setns", "open_by_handle_at",
    "init_module", "finit_module", "delete_module", "kexec_load", "reboot", "migrate_pages", "move_pages",
    "inotify_add_watch", "fanotify_init",  # would tell the names of a neighbour's files
    "bind", "syslog",  # a session's only socket is bound before this filter
    "shmget", "shmat", "shmctl", "semget", "semctl", "semop", "semtimedop", "msgget", "msgctl", "msgsnd", "msgrcv",
    "mq_open", "mq_unlink",  # shared by all processes of a user id
)  # fmt: skip
# By path and not judged by Landlock: a session could lock its neighbours out of their files, or age them. Success is
# pretended since copying a file ends in these; modes come from the umask, which keeps everything private. `listen` was
# called before, and the server's library calls it again.
PRETENDED = ("chmod", "fchmodat", "fchmodat2", "utime", "utimes", "futimesat", "listen")
UNSUPPORTED = ("setxattr", "lsetxattr", "removexattr", "lremovexattr", "setxattrat", "removexattrat")
FAST_OPEN = 0x20000000  # MSG_FASTOPEN connects without being asked whether it may
SENDING = (("sendto", 3), ("sendmsg", 2), ("sendmmsg", 3))
STREAMS = (socket.SOCK_STREAM, socket.SOCK_SEQPACKET)  # a datagram socket, even of a pair, can address any other
# call, argument with the mode. Landlock judges it too, where the kernel has it: a FIFO makes whoever opens it wait.
MAKING = (("mknod", 1), ("mknodat", 2))
PLAIN_FILES = (0, stat.S_IFREG)
# call, argument, the one value allowed: on this process alone
ON_SELF = (
    ("prlimit64", 0, 0), ("sched_setaffinity", 0, 0), ("sched_setscheduler", 0, 0), ("sched_setparam", 0, 0),
    ("sched_setattr", 0, 0), ("setpriority", 0, 0), ("setpriority", 1, 0), ("ioprio_set", 0, 1), ("ioprio_set", 1, 0),
)  # fmt: skip


@dataclass(frozen=True)
class Rule:
    """Answer a call with `code` (0: pretend success), or only when `argument & mask` is none of `allowed`."""

    number: int
    code: int
    argument: int | None = None
    mask: int = 0xFFFFFFFF
    allowed: tuple[int, ...] = (0,)
    high: bool = False
    """Judge the upper half of the argument instead of the lower."""


def rules(machine: str, *, network: bool) -> list[Rule]:
    """What a session may not call. Without `network` it makes no socket at all, with it TCP ones only."""
    column = list(MACHINES).index(machine)
    number = {name: numbers[column] for name, numbers in NUMBERS.items()}
    made = [Rule(number[name], errno.EPERM) for name in REFUSED]
    made += [Rule(number[name], 0) for name in PRETENDED]
    made += [Rule(number["utimensat"], 0, 1, high=high) for high in (False, True)]  # without a path: on an open file
    made += [Rule(number[name], errno.ENOTSUP) for name in UNSUPPORTED]
    made += [Rule(number[name], errno.EPERM, argument, allowed=(value,)) for name, argument, value in ON_SELF]
    made += [Rule(number[name], errno.EPERM, at, 0o170000, PLAIN_FILES) for name, at in MAKING]
    made.append(Rule(number["clone"], errno.EPERM, 0, NEW_NAMESPACES))
    made.append(Rule(number["clone3"], errno.ENOSYS))  # its flags lie out of a filter's sight; libc falls back to clone
    made.append(Rule(number["socketpair"], errno.EACCES, 0, allowed=(socket.AF_UNIX,)))
    made.append(Rule(number["socketpair"], errno.EACCES, 1, mask=0xF, allowed=STREAMS))
    made += [Rule(number[name], errno.EACCES, argument, FAST_OPEN) for name, argument in SENDING]
    made += _tcp_only(number) if network else [Rule(number[name], errno.EACCES) for name in ("socket", "connect")]
    return [rule for rule in made if rule.number]


def _tcp_only(number: dict[str, int]) -> list[Rule]:
    """No Unix sockets (other sessions, the session host, Docker), and of the network only what Landlock judges."""
    return [
        Rule(number["socket"], errno.EACCES, 0, allowed=(socket.AF_INET, socket.AF_INET6)),
        Rule(number["socket"], errno.EACCES, 1, mask=0xF, allowed=(socket.SOCK_STREAM,)),
        Rule(number["socket"], errno.EACCES, 2, allowed=(0, socket.IPPROTO_TCP)),
    ]


def build(machine: str, wanted: Sequence[Rule]) -> bytes:
    """The BPF program of those rules. Another machine's calls, and x32's, are refused: their numbers differ."""
    program = [
        _step(LOAD, MACHINE_AT),
        _step(JUMP_EQUAL, MACHINES[machine], 1, 0),
        _step(RETURN, ERRNO | errno.EPERM),
        _step(LOAD, NUMBER_AT),
    ]
    if machine == "x86_64":
        program += [_step(JUMP_GREATER_EQUAL, X32_BIT, 0, 1), _step(RETURN, ERRNO | errno.ENOSYS)]
    for rule in wanted:
        answer = _step(RETURN, ERRNO | rule.code)
        if rule.argument is None:
            program += [_step(JUMP_EQUAL, rule.number, 0, 1), answer]
            continue
        count = len(rule.allowed)
        program += [
            _step(JUMP_EQUAL, rule.number, 0, count + 4),
            _step(LOAD, ARGUMENTS_AT + 8 * rule.argument + (4 if rule.high else 0)),
            _step(AND, rule.mask),
            *(_step(JUMP_EQUAL, value, count - place, 0) for place, value in enumerate(rule.allowed)),
            answer,
            _step(LOAD, NUMBER_AT),
        ]
    return b"".join([*program, _step(RETURN, ALLOW)])


def supported() -> bool:
    """Whether this machine's call numbers are known here."""
    return platform.machine() in MACHINES


def install(*, network: bool) -> None:
    """Filter this process for good. Needs no_new_privs. Raises OSError."""
    machine = platform.machine()
    if machine not in MACHINES:
        raise OSError(f"no filter is known for {machine}")
    code = build(machine, rules(machine, network=network))
    text = ctypes.create_string_buffer(code, len(code))

    class Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))

    program = Program(len(code) // 8, ctypes.addressof(text))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_SECCOMP, ctypes.c_ulong(MODE_FILTER), ctypes.byref(program), 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "seccomp refused the filter")


def _step(code: int, value: int, true: int = 0, false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, true, false, value)
