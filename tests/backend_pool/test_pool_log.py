"""What the log says of backends that come, move and go."""

import logging
from pathlib import Path

import pytest
from sqlmodel import Session

from backend_pool.model import Backend
from proxy.base.logs import fields_of
from tests.backend_pool.rig import rig

NOBODY = ("http://127.0.0.1:9", "http://u:hunter2@127.0.0.1:10")


async def test_one_that_never_answers_and_moves(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def told(message: str) -> list[dict[str, object]]:
        return [fields_of(record) for record in caplog.records if record.getMessage() == message]

    def move(session: Session) -> None:
        session.get_one(Backend, 1).url = NOBODY[1]

    with caplog.at_level(logging.INFO):
        async with rig(tmp_path, backend_down_after_s=60) as r:
            await r.registry.add(NOBODY[0], "gpu-1")
            await r.pool.refresh()
            await r.eventually(lambda: bool(told("backend does not answer yet")))
            member = r.pool.members[1]
            member.error = "known"
            member.doubted.set()
            await r.eventually(lambda: member.error != "known")
            assert len(told("backend does not answer yet")) == 1
            await r.db.write(move)
            await r.pool.refresh()
            moved = {"backend": "gpu-1", "was": NOBODY[0], "url": "http://127.0.0.1:10"}
            assert told("backend moved") == [moved] and told("backend removed") == []
            await r.registry.remove(1)
            await r.pool.refresh()
            assert told("backend removed") == [{"backend": "gpu-1"}]
