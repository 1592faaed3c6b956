"""Passwords: hashing and checking with argon2 in a few threads of its own, rules, and readable generated ones.

Keeps no state about people. Work beyond `WAITING` requests is refused, so that a flood of logins cannot pile up.
"""

import asyncio
import secrets
from concurrent.futures import ThreadPoolExecutor

from pwdlib import PasswordHash
from pwdlib.exceptions import UnknownHashError
from pwdlib.hashers.argon2 import Argon2Hasher

from proxy.base.errors import BadInput, Unavailable

# OWASP's argon2id profile with the smaller memory: a class of fifty signing in at once needs 2 x 19 MiB, not gigabytes.
_HASH = PasswordHash((Argon2Hasher(time_cost=2, memory_cost=19_456, parallelism=1),))
THREADS = 2
WAITING = 200
SHORTEST = 8
LONGEST = 256
READABLE = "abcdefghjkmnpqrstuvwxyz23456789"


def check_rules(password: str, name: str) -> None:
    """Raise BadInput naming the rule that `password` breaks."""
    if len(password) < SHORTEST:
        raise BadInput(f"The password needs at least {SHORTEST} characters.")
    if len(password) > LONGEST:
        raise BadInput(f"The password may have at most {LONGEST} characters.")
    if password.casefold() == name.casefold():
        raise BadInput("The password must differ from the user name.")
    if not password.isprintable():
        raise BadInput("The password may not contain control characters.")


def generate() -> str:
    """Four groups of four easily read characters: 79 random bits."""
    return "-".join("".join(secrets.choice(READABLE) for _ in range(4)) for _ in range(4))


def hash_now(password: str) -> str:
    """Hash in the calling thread (about 25 ms), for the command line."""
    return _HASH.hash(password)


def verify_now(password: str, password_hash: str | None) -> bool:
    """Whether it matches; None (no such user) costs the same time, so that answers do not tell who exists."""
    if len(password) > LONGEST:
        return False
    try:
        matches = _HASH.verify(password, password_hash or _DECOY)
    except UnknownHashError:
        return False
    return matches and password_hash is not None


_DECOY = _HASH.hash(secrets.token_urlsafe())


class Passwords:
    """The awaitable forms."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="passwords")
        self._waiting = 0

    async def hash(self, password: str) -> str:
        """A new hash."""
        self._admit()
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, hash_now, password)
        finally:
            self._waiting -= 1

    async def verify(self, password: str, password_hash: str | None) -> bool:
        """Whether `password` is the one that was hashed; see verify_now."""
        self._admit()
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, verify_now, password, password_hash)
        finally:
            self._waiting -= 1

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown(cancel_futures=True)

    def _admit(self) -> None:
        if self._waiting >= WAITING:
            raise Unavailable("Too many people are signing in right now. Try again in a moment.")
        self._waiting += 1
