"""Whether a backend with the worker pack lives and is who it says: part of each of its probes."""

from backend_pool.backends.member import Member
from backend_pool.errors import BackendBroken, BackendGone
from backend_pool.worker_pack.wire import PREFIX
from backend_pool.workers.registrations import Workers


async def prove(workers: Workers, member: Member, timeout_s: float) -> None:
    """Take what its heartbeats say, and have it say who it is: whatever address a heartbeat names, nothing of users
    goes to anybody else there. Raises BackendGone when heartbeats stay away, BackendBroken for somebody else."""
    silent_s = workers.silent_s(member.key)
    if silent_s is not None:
        raise BackendGone(f"{member.client.label}: no heartbeat for {silent_s:.0f} s")
    heard = workers.heard(member.key)
    member.shared = heard is not None and heard.shared
    member.shelf = 0 if heard is None else heard.beat.shelf
    instance = None if heard is None else heard.beat.instance
    if member.worker is None or (member.proven is not None and instance in (None, member.proven)):
        return
    said = await member.client.get_json(f"{PREFIX}/about", timeout_s)
    told = said if isinstance(said, dict) else {}
    if told.get("worker_id") != member.worker.worker_id or instance not in (None, told.get("instance")):
        raise BackendBroken(f"{member.client.label}: it is not the worker that registered with this address")
    member.proven = str(told.get("instance"))
