"""What a hostile custom node tries, one function each, with what it could know: `Facts` are paths, ids and ports.

Standard library only, so that it runs in any session. An attempt that works returns, one that fails raises OSError.
None does harm when it works: signals are number 0, what is written lies in the directories of the test.
"""

import contextlib
import ctypes
import errno
import mmap
import os
import resource
import signal
import socket
import struct
import subprocess
import sys
import threading
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


def attempt(name: str, facts: Facts) -> dict[str, Any]:
    """Try it: `{"ok": what came of it}` or `{"error": "EACCES"}`."""
    try:
        return {"ok": repr(globals()[name](facts))[:200]}
    except OSError as error:
        return {"error": errno.errorcode.get(error.errno or 0, str(error))}
    except MemoryError:
        return {"error": "ENOMEM"}


def names() -> list[str]:
    """Every attempt there is."""
    return [name for name, value in globals().items() if name.startswith("try_") and callable(value)]


# Other users' files, and the server's


def try_read_anothers_file(facts: Facts) -> object:
    return Path(facts["ann"]["output"], "secret.png").read_text()


def try_list_anothers_directory(facts: Facts) -> object:
    return _names(facts["ann"]["output"])


def try_list_the_users(facts: Facts) -> object:
    return _names(Path(facts["data"], "users"))


def try_list_the_data_directory(facts: Facts) -> object:
    return _names(facts["data"])


def try_write_into_anothers_directory(facts: Facts) -> object:
    return Path(facts["ann"]["input"], "planted").write_text("x")


def try_overwrite_anothers_file(facts: Facts) -> object:
    return Path(facts["ann"]["output"], "secret.png").write_text("x")


def try_truncate_anothers_file(facts: Facts) -> object:
    return os.truncate(Path(facts["ann"]["output"], "secret.png"), 1)


def try_remove_anothers_file(facts: Facts) -> object:
    return Path(facts["ann"]["output"], "secret.png").unlink()


def try_move_anothers_file_here(facts: Facts) -> object:
    return Path(facts["ann"]["output"], "secret.png").rename(Path(facts["mine"]["output"], "taken.png"))


def try_link_anothers_file_here(facts: Facts) -> object:
    return os.link(Path(facts["ann"]["output"], "secret.png"), Path(facts["mine"]["output"], "linked.png"))


def try_link_the_key_here(facts: Facts) -> object:
    return os.link(Path(facts["data"], "secret.key"), Path(facts["mine"]["input"], "key.png"))


def try_plant_a_link_to_the_key(facts: Facts) -> object:
    return Path(facts["mine"]["output"], "key.png").symlink_to(Path(facts["data"], "secret.key"))


def try_replace_my_directory_by_a_link(facts: Facts) -> object:
    mine = Path(facts["mine"]["output"])
    mine.rename(mine.with_name("output.away"))
    return mine.symlink_to(facts["ann"]["output"])


def try_read_the_database(facts: Facts) -> object:
    return Path(facts["data"], "cluster.db").read_bytes()[:16]


def try_write_the_database(facts: Facts) -> object:
    return os.open(Path(facts["data"], "cluster.db"), os.O_RDWR)


def try_read_the_key(facts: Facts) -> object:
    return Path(facts["data"], "secret.key").read_text()


def try_read_the_hosts_token(facts: Facts) -> object:
    return Path(facts["run"], "host.token").read_text()


def try_read_anothers_log(facts: Facts) -> object:
    return Path(facts["ann"]["log"]).read_text()


def try_read_the_machines_accounts(_facts: Facts) -> object:
    return Path("/etc/passwd").read_text()


def try_list_the_root(_facts: Facts) -> object:
    return _names("/")


def try_write_to_the_temporary_folder(facts: Facts) -> object:
    return Path(facts["data"]).parent.joinpath("evil").write_text("x")


def try_write_shared_memory(_facts: Facts) -> object:
    path = Path(f"/dev/shm/hostile-{os.getpid()}")
    path.write_text("x")
    return path.unlink()


def try_set_times_of_anothers_file(facts: Facts) -> object:
    path = Path(facts["ann"]["output"], "secret.png")
    os.utime(path, (1, 1))
    return _changed(path.stat().st_mtime == 1)


def try_lock_anothers_file_away(facts: Facts) -> object:
    path = Path(facts["ann"]["output"], "secret.png")
    path.chmod(0)
    return _changed(path.stat().st_mode & 0o777 == 0)


def try_mark_anothers_file(facts: Facts) -> object:
    return os.setxattr(Path(facts["ann"]["output"], "secret.png"), "user.mark", b"x")


# What all sessions run


def try_write_a_public_model(facts: Facts) -> object:
    return Path(facts["data"], "public/models/evil.safetensors").write_text("x")


def try_write_a_public_custom_node(facts: Facts) -> object:
    return Path(facts["data"], "public/custom_nodes/evil.py").write_text("x")


def try_move_the_public_directory(facts: Facts) -> object:
    models = Path(facts["data"], "public/models")
    return models.rename(models.with_name("gone")).rename(models)


def try_plant_compiled_code(facts: Facts) -> object:
    return _write_and_remove(Path(facts["code"], "__pycache__", f"evil.{sys.implementation.cache_tag}.pyc"))


def try_plant_code_in_the_standard_library(_facts: Facts) -> object:
    return _write_and_remove(Path(os.__file__).parent / "hostile_evil.py")


def try_plant_a_site_file(facts: Facts) -> object:
    return _write_and_remove(Path(facts["packages"], "hostile_evil.pth"))


def try_write_the_frontends_cache(facts: Facts) -> object:
    return _write_and_remove(Path(facts["data"], "cache/frontend/evil.js"))


# Other processes


def try_list_processes(_facts: Facts) -> object:
    return _names("/proc")


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
    return _called(
        libc.syscall(
            READ_MEMORY, facts["server_pid"], ctypes.byref(local), 1, ctypes.byref(remote), 1, ctypes.c_ulong(0)
        )
    )


def try_trace_another_session(facts: Facts) -> object:
    pid = facts["ann"]["pid"]
    _called(libc.ptrace(PTRACE_ATTACH, pid, 0, 0))
    os.waitpid(pid, 0)
    return libc.ptrace(PTRACE_DETACH, pid, 0, 0)


def try_take_a_descriptor_of_the_zygote(_facts: Facts) -> object:
    pidfd = os.pidfd_open(os.getppid())
    return _called(libc.syscall(GETFD, pidfd, 1, 0))


def try_read_anothers_environment(facts: Facts) -> object:
    return Path(f"/proc/{facts['ann']['pid']}/environ").read_bytes()[:8]


def try_read_the_servers_command_line(facts: Facts) -> object:
    return Path(f"/proc/{facts['server_pid']}/cmdline").read_bytes()[:8]


def try_go_through_the_servers_root(facts: Facts) -> object:
    return _names(f"/proc/{facts['server_pid']}/root/")


def try_list_the_servers_descriptors(facts: Facts) -> object:
    return _names(f"/proc/{facts['server_pid']}/fd")


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


# Sockets


def try_connect_to_another_session(facts: Facts) -> object:
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect(facts["ann"]["socket"])


def try_connect_to_the_session_host(facts: Facts) -> object:
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect(str(Path(facts["run"], "host.sock")))


def try_send_a_datagram_to_a_unix_socket(facts: Facts) -> object:
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with one, other:
        return one.sendto(b"x", facts["datagram_socket"])


def try_connect_an_inherited_socket(facts: Facts) -> object:
    """The session's own listener, aimed at somebody else's socket."""
    for fd in range(3, 64):
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(fd)) as mine:
            if mine.family == socket.AF_UNIX and mine.getsockname() and not mine.getsockname().startswith("\0"):
                try:
                    mine.getpeername()
                except OSError:
                    return mine.connect(facts["ann"]["socket"])
    raise OSError(errno.EACCES, "there is none, or it does not connect")


def try_listen_on_a_unix_socket(facts: Facts) -> object:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(Path(facts["mine"]["temp"], "s")))
        return listener.listen()


def try_connect_to_a_gpu_instance(facts: Facts) -> object:
    with socket.create_connection(("127.0.0.1", facts["port"]), 5):
        return True


def try_connect_by_fast_open(facts: Facts) -> object:
    with socket.socket() as client:
        return client.sendto(b"x", FAST_OPEN, ("127.0.0.1", facts["port"]))


def try_connect_by_multipath_tcp(facts: Facts) -> object:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, MPTCP) as client:
        return client.connect(("127.0.0.1", facts["port"]))


def try_send_a_datagram(facts: Facts) -> object:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        return client.sendto(b"x", ("127.0.0.1", facts["port"]))


def try_listen_on_tcp(_facts: Facts) -> object:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        with socket.create_connection(listener.getsockname(), 5):
            return True


def try_listen_on_tcp_unbound(_facts: Facts) -> object:
    with socket.socket() as listener:
        listener.listen()
        return _changed(listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 1)


def try_make_a_netlink_socket(_facts: Facts) -> object:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW):
        return True


def try_make_a_packet_socket(_facts: Facts) -> object:
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW):
        return True


def try_use_io_uring(_facts: Facts) -> object:
    parameters = ctypes.create_string_buffer(256)
    return os.close(_called(libc.syscall(URING, 4, parameters)))


# Privileges


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
    return _changed_by(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))


def try_join_a_group(_facts: Facts) -> object:
    return os.setgroups([0, 6])


def try_make_a_user_namespace(_facts: Facts) -> object:
    return _in_a_child(lambda: _called(libc.syscall(UNSHARE, NEW_USER)))


def try_make_a_mount_namespace(_facts: Facts) -> object:
    return _in_a_child(lambda: _called(libc.syscall(UNSHARE, NEW_NS)))


def try_mount(facts: Facts) -> object:
    path = os.fsencode(facts["mine"]["temp"])
    _called(libc.mount(b"tmpfs", path, b"tmpfs", 0, None))
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
    return _in_a_child(lambda: os.chroot(facts["mine"]["temp"]))


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
    found = _called(libc.shmget(0, 4096, 0o1600))
    return libc.shmctl(found, 0, None)


def try_watch_anothers_directory(facts: Facts) -> object:
    fd = _called(libc.inotify_init())
    try:
        return _called(libc.inotify_add_watch(fd, os.fsencode(facts["ann"]["output"]), 0x100))
    finally:
        os.close(fd)


# Exhaustion


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


def _names(folder: str | Path) -> list[str]:
    with os.scandir(folder) as entries:
        return [entry.name for entry in entries]


def _changed(worked: bool) -> bool:
    if not worked:
        raise OSError(errno.EPERM, "it was said to work, and nothing changed")
    return True


def _changed_by(code: int) -> bool:
    if code:
        raise OSError(code, os.strerror(code))
    return True


def _called(result: int) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def _write_and_remove(path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(struct.pack("I", 1))
    path.unlink()


def _in_a_child(act: Any) -> bool:
    pid = os.fork()
    if pid == 0:
        code = 0
        try:
            act()
        except OSError as error:
            code = error.errno or 255
        os._exit(code)
    return _changed_by(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
