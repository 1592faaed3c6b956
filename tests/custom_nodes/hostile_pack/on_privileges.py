"""Attempts to have more privileges, or to use up the machine. Standard library only."""

import errno
import mmap
import os
import resource
import threading
from pathlib import Path

from .means import (  # noqa: TID252 - a pack has a name made of its path
    MIB,
    NEW_NS,
    NEW_USER,
    UNSHARE,
    Facts,
    called,
    changed_by,
    in_a_child,
    libc,
)


def try_become_root(_facts: Facts) -> object:
    os.setresuid(0, 0, 0)
    return os.open("/etc/shadow", os.O_RDONLY)


def try_become_another_user(facts: Facts) -> object:
    anns = facts["ann"]["uid"]
    uid = anns if anns != os.getuid() else os.getuid() + 1  # with a shared id she is nobody else
    pid = os.fork()  # in a process of its own, which never comes back from it
    if pid == 0:
        code = 0
        try:
            os.setresuid(uid, uid, uid)
        except OSError as error:
            code = error.errno or 255
        os._exit(code)
    return changed_by(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))


def try_join_a_group(_facts: Facts) -> object:
    return os.setgroups([0, 6])


def try_make_a_user_namespace(_facts: Facts) -> object:
    return in_a_child(lambda: called(libc.syscall(UNSHARE, NEW_USER)))


def try_make_a_mount_namespace(_facts: Facts) -> object:
    return in_a_child(lambda: called(libc.syscall(UNSHARE, NEW_NS)))


def try_mount(facts: Facts) -> object:
    path = os.fsencode(facts["mine"]["temp"])
    called(libc.mount(b"tmpfs", path, b"tmpfs", 0, None))
    return libc.umount2(path, 2)


def try_make_a_device(facts: Facts) -> object:
    path = Path(facts["mine"]["temp"], "null")
    os.mknod(path, 0o020666, os.makedev(1, 3))
    return path.unlink()


def try_make_a_fifo(facts: Facts) -> object:
    """In one's own folder: the server may open what lies there, and would wait."""
    path = Path(facts["mine"]["output"], "fifo.png")
    os.mkfifo(path)
    return path.unlink()


def try_make_a_socket_file(facts: Facts) -> object:
    path = Path(facts["mine"]["output"], "socket.png")
    os.mknod(path, 0o140666)
    return path.unlink()


def try_change_root(facts: Facts) -> object:
    return in_a_child(lambda: os.chroot(facts["mine"]["temp"]))


def try_raise_my_limits(_facts: Facts) -> object:
    name = resource.RLIMIT_CORE
    try:
        resource.setrlimit(name, (1, 1))
    except ValueError as error:  # "not allowed to raise maximum limit"
        raise OSError(errno.EPERM, str(error)) from error
    return resource.setrlimit(name, (0, 0))


def try_write_kernel_settings(_facts: Facts) -> object:
    path = Path("/proc/sys/kernel/domainname")
    return path.write_text(path.read_text())


def try_use_system_v_memory(_facts: Facts) -> object:
    found = called(libc.shmget(0, 4096, 0o1600))
    return libc.shmctl(found, 0, None)


def try_watch_anothers_directory(facts: Facts) -> object:
    fd = called(libc.inotify_init())
    try:
        return called(libc.inotify_add_watch(fd, os.fsencode(facts["ann"]["output"]), 0x100))
    finally:
        os.close(fd)


def try_write_too_large_a_file(facts: Facts) -> object:
    path = Path(facts["mine"]["temp"], "big")
    try:
        with path.open("wb") as out:
            return out.truncate((facts["file_mb"] + 1) * MIB)
    finally:
        path.unlink(missing_ok=True)


def try_take_too_much_memory(facts: Facts) -> object:
    with mmap.mmap(-1, (facts["memory_mb"] + 64) * MIB) as taken:
        return len(taken)


def try_start_too_many_threads(facts: Facts) -> object:
    """As the kernel counts them, threads are processes."""
    go = threading.Event()
    started: list[threading.Thread] = []
    try:
        for _ in range(facts["processes"] + 8):
            thread = threading.Thread(target=go.wait, args=(60,))
            try:
                thread.start()
            except RuntimeError as error:  # "can't start new thread"
                raise OSError(errno.EAGAIN, str(error)) from error
            started.append(thread)
        return len(started)
    finally:
        go.set()
        for thread in started:
            thread.join()
