"""Attempts on other processes. Standard library only."""

import ctypes
import os
import resource
import signal
import subprocess
from pathlib import Path

from .means import (  # noqa: TID252 - a pack has a name made of its path
    GETFD,
    PTRACE_ATTACH,
    PTRACE_DETACH,
    READ_MEMORY,
    Facts,
    called,
    libc,
    names,
)


def try_list_processes(_facts: Facts) -> object:
    return names("/proc")


def try_read_the_memory_of_another_session(facts: Facts) -> object:
    with Path(f"/proc/{facts['ann']['pid']}/mem").open("rb"):
        return True


def try_read_the_memory_of_the_server(facts: Facts) -> object:
    with Path(f"/proc/{facts['server_pid']}/mem").open("rb"):
        return True


def try_read_the_memory_of_the_zygote(_facts: Facts) -> object:
    with Path(f"/proc/{os.getppid()}/mem").open("rb"):
        return True


def try_copy_the_memory_of_the_server(facts: Facts) -> object:
    here = ctypes.create_string_buffer(8)

    class Vector(ctypes.Structure):
        _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))

    local = Vector(ctypes.addressof(here), 8)
    remote = Vector(facts["address"], 8)
    return called(
        libc.syscall(
            READ_MEMORY, facts["server_pid"], ctypes.byref(local), 1, ctypes.byref(remote), 1, ctypes.c_ulong(0)
        )
    )


def try_trace_another_session(facts: Facts) -> object:
    pid = facts["ann"]["pid"]
    called(libc.ptrace(PTRACE_ATTACH, pid, 0, 0))
    os.waitpid(pid, 0)
    return libc.ptrace(PTRACE_DETACH, pid, 0, 0)


def try_take_a_descriptor_of_the_zygote(_facts: Facts) -> object:
    pidfd = os.pidfd_open(os.getppid())
    return called(libc.syscall(GETFD, pidfd, 1, 0))


def try_read_anothers_environment(facts: Facts) -> object:
    return Path(f"/proc/{facts['ann']['pid']}/environ").read_bytes()[:8]


def try_read_the_servers_command_line(facts: Facts) -> object:
    return Path(f"/proc/{facts['server_pid']}/cmdline").read_bytes()[:8]


def try_go_through_the_servers_root(facts: Facts) -> object:
    return names(f"/proc/{facts['server_pid']}/root/")


def try_list_the_servers_descriptors(facts: Facts) -> object:
    return names(f"/proc/{facts['server_pid']}/fd")


def try_signal_another_session(facts: Facts) -> object:
    return os.kill(facts["ann"]["pid"], 0)


def try_signal_the_group_of_another_session(facts: Facts) -> object:
    return os.killpg(facts["ann"]["pid"], 0)


def try_signal_the_server(facts: Facts) -> object:
    return os.kill(facts["server_pid"], 0)


def try_signal_the_zygote(_facts: Facts) -> object:
    return signal.pidfd_send_signal(os.pidfd_open(os.getppid()), 0)


def try_change_anothers_limits(facts: Facts) -> object:
    return resource.prlimit(facts["ann"]["pid"], resource.RLIMIT_NOFILE)


def try_change_anothers_priority(facts: Facts) -> object:
    return os.setpriority(os.PRIO_PROCESS, facts["ann"]["pid"], 19)


def try_start_a_program(facts: Facts) -> object:
    return subprocess.run([facts["program"]], capture_output=True, check=True).returncode
