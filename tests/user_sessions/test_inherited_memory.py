"""A session is a fork: what its zygote ever read, it has in its own memory. Orders of others must not be there."""

import hashlib
from dataclasses import replace
from pathlib import Path

from proxy.base.names import new_id, new_secret
from tests.user_sessions.studio import ask, gone, make_spec, open_studio
from user_sessions.runtime import SessionSpec

OTHERS = 12


async def remembers(session: SessionSpec, text: str) -> bool:
    """Whether a text is in the memory of that session."""
    half = len(text) // 2
    answer = await ask(session, "remembered", begin=text[:half], length=len(text) - half)
    return hashlib.sha256(text[half:].encode()).hexdigest() in answer["ok"]


async def test_nobody_inherits_the_orders_of_others(place: Path) -> None:
    """However many came before, one again and again; and the search does find what is there: its own."""
    # Without the sandbox, which may hide /proc: a node in it reads its memory in other ways.
    async with open_studio(place, sandbox="off") as studio:
        secrets = []
        for number in range(OTHERS):
            # Of all lengths, or what a fork reads of its own lands where theirs was.
            spec = make_spec(studio.settings, f"ann{number}" + "x" * (number * 4 % 50))
            spec = replace(spec, session_id=new_id(), secret="-".join([new_secret()] * (1 + number % 4)))
            started = await studio.spawner.start(spec)
            assert started.pid is not None
            secrets.append(spec.secret)
            if number % 2:
                await studio.spawner.stop(spec.session_id)
                await gone(started.pid)
        mallory = make_spec(studio.settings, "mallory")
        await studio.spawner.start(mallory)
        assert await remembers(mallory, mallory.secret)
        assert [number for number, secret in enumerate(secrets) if await remembers(mallory, secret[:40])] == []
