"""Asks a backend for the second opinion on a prompt: one short request.

Without an answer the proxy's own verdict stands, and what only a backend can judge fails the job there. A worker pack
judges in empty directories and only while nothing runs: its nodes see the directories of whoever has a job there.
"""

import asyncio
from collections.abc import Callable, Collection

from backend_pool.backends.health import Health
from backend_pool.backends.member import Member
from backend_pool.backends.pool import Pool
from backend_pool.errors import BackendError, BackendRefused
from backend_pool.model import JsonDict
from backend_pool.prompts.second_opinion import Opinions, answer, question, with_opinions
from backend_pool.workers.client import WorkerClient
from proxy.base.logs import events
from proxy.base.names import new_id

log = events(__name__)

TIMEOUT_S = 3.0
"""How long a prompt may wait for it: a backend that is busy loading a model may not answer at once."""


class Consultant:
    """Picks the backend and asks it."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    def asks(self, prompt: object, is_file: Callable[[str], bool]) -> set[str]:
        """Nodes of a prompt that only a backend can judge; most prompts have none. Blocking: looks for files."""
        return with_opinions(prompt, self._pool.info.union, is_file)

    async def opinions(self, prompt: JsonDict, targets: Collection[str] | None, asked: set[str]) -> Opinions | None:
        """What those nodes say at a backend that has all of the prompt's; None when nobody could be asked."""
        member = self._member({node["class_type"] for node in prompt.values()})
        if member is None:
            return None
        ends = [node_id for node_id, node in prompt.items() if member.info[node["class_type"]].get("output_node")]
        outputs = ends if targets is None else [node_id for node_id in ends if node_id in targets]
        sent = await asyncio.to_thread(question, prompt, outputs, asked, member.info)  # prompts may have megabytes
        if sent is None:
            return None
        try:
            async with asyncio.timeout(TIMEOUT_S):
                await _ask(member, sent)
        except BackendRefused as refused:
            return answer(refused.body, sent, asked)
        except (BackendError, TimeoutError):
            return None
        return None

    def _member(self, classes: set[str]) -> Member | None:
        fit = [m for m in self._pool.members.values() if m.health is Health.UP and classes <= m.info.keys()]
        # A busy stock backend answers later, a busy worker not at all.
        return min(fit, key=lambda m: (m.job is not None, m.worker is not None), default=None)


async def _ask(member: Member, sent: JsonDict) -> None:
    """Raises BackendRefused with the answer."""
    if member.worker is not None:
        await WorkerClient(member.client).validate(sent)
        return
    prompt_id = new_id()
    await member.client.submit({"prompt": sent, "prompt_id": prompt_id, "client_id": prompt_id})
    log.error("a prompt that must be refused was taken", backend=member.row.name)
    member.leftovers.add(prompt_id)
