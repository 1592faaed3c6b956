"""A session asks for a name where the only name server speaks TCP alone: `python -m tests.user_sessions.tcp_names`.

Run in a network and a mount namespace of its own, so that port 53 and /etc/resolv.conf are ours. Prints the addresses.
"""

import asyncio
import contextlib
import socket
import struct
import subprocess
import threading
from pathlib import Path

from tests.user_sessions.studio import ask, make_spec, open_studio, short_directory

ADDRESS = "192.0.2.7"


def main() -> None:
    """Serve names, start a session, ask."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    with short_directory() as place, socket.create_server(("127.0.0.1", 53)) as server:
        (place / "resolv.conf").write_text("nameserver 127.0.0.1\n")
        subprocess.run(["mount", "--bind", place / "resolv.conf", "/etc/resolv.conf"], check=True)
        threading.Thread(target=answer_all, args=(server,), daemon=True).start()
        print(asyncio.run(look_up(place)), flush=True)


async def look_up(place: Path) -> object:
    """From inside a session."""
    async with open_studio(place, session_network="on") as studio:
        spec = make_spec(studio.settings, "ann")
        await studio.spawner.start(spec)
        return (await ask(spec, "look_up", name="models.example"))["ok"]


def answer_all(server: socket.socket) -> None:
    """Every question of every connection, until the server is closed."""
    with contextlib.suppress(OSError):
        while True:
            client, _ = server.accept()
            with client:
                while head := client.recv(2):
                    question = client.recv(struct.unpack("!H", head)[0], socket.MSG_WAITALL)
                    client.sendall(answer(question))


def answer(question: bytes) -> bytes:
    """An A record for an A question, none for others, with the length in front."""
    end = question.index(b"\0", 12) + 5
    wanted = struct.unpack("!H", question[end - 4 : end - 2])[0] == 1
    record = b"\xc0\x0c" + struct.pack("!HHIH", 1, 1, 60, 4) + socket.inet_aton(ADDRESS) if wanted else b""
    reply = question[:2] + struct.pack("!HHHHH", 0x8180, 1, int(wanted), 0, 0) + question[12:end] + record
    return struct.pack("!H", len(reply)) + reply


if __name__ == "__main__":
    main()
