"""Jobs as pages and API show them: read-only queries. Reads no prompt twice and never more than a page of rows.

Place in the queue: each user's first waiting job by age, then each user's second, and so on, which is the order in
which a fair pool serves them.
"""

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func
from sqlmodel import Session, col, select

from backend_pool.job_state import ACTIVE, FINAL, ON_BACKEND, JobState
from backend_pool.model import Job, JobDocument
from proxy.base.database import Database
from proxy.base.errors import NotFound

TITLE_LENGTH = 90
ERROR_LENGTH = 240
TITLES_KEPT = 2000
TEXT_INPUTS = ("text", "prompt", "positive", "value", "string", "t5xxl", "clip_l")


@dataclass(frozen=True)
class JobView:
    """One job. `place` counts from 1 over the whole pool and is None unless it waits."""

    job: Job
    title: str
    place: int | None
    error: str | None = None


@dataclass(frozen=True)
class Picture:
    """One finished file, as `/view` finds it."""

    seq: int
    prompt_id: str
    filename: str
    subfolder: str
    type: str
    ended_ms: int | None


class JobViews:
    """Queries over jobs. Titles are kept in memory (bounded, the oldest goes) since a prompt never changes."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._titles: OrderedDict[int, str] = OrderedDict()

    async def of_user(self, user_id: int, active: int, finished: int) -> list[JobView]:
        """The user's active jobs, the next to run first, then the latest finished ones."""

        def work(session: Session) -> tuple[list[Job], dict[int, int]]:
            mine = select(Job).where(Job.user_id == user_id)
            running = mine.where(col(Job.state).in_(ON_BACKEND)).order_by(col(Job.seq)).limit(active)
            waiting = mine.where(Job.state == JobState.QUEUED).order_by(col(Job.number), col(Job.seq)).limit(active)
            ended = mine.where(col(Job.state).in_(FINAL)).order_by(col(Job.ended_ms).desc(), col(Job.seq).desc())
            jobs = [*session.exec(running), *session.exec(waiting)][:active]
            places = _places(session, [job.key for job in jobs if job.state == JobState.QUEUED])
            return [*jobs, *session.exec(ended.limit(finished))], places

        jobs, places = await self._db.read(work)
        titles = await self._titles_of(jobs)
        errors = await self._errors_of([job.key for job in jobs if job.state == JobState.FAILED])
        return [JobView(job, titles[job.key], places.get(job.key), errors.get(job.key)) for job in jobs]

    async def active_count(self, user_id: int) -> int:
        """How many jobs of the user wait or run."""
        query = select(func.count()).where(Job.user_id == user_id, col(Job.state).in_(ACTIVE))
        return await self._db.read(lambda session: session.exec(query).one())

    async def queue(self, limit: int) -> tuple[list[JobView], int]:
        """Everybody's running jobs, then the waiting ones by place; and how many there are in all. Without titles:
        what people write is theirs."""

        def work(session: Session) -> tuple[list[JobView], int]:
            running = select(Job).where(col(Job.state).in_(ON_BACKEND)).order_by(col(Job.seq)).limit(limit)
            views = [JobView(job, "", None) for job in session.exec(running)]
            places = _places(session, None, limit)
            waiting = session.exec(select(Job).where(col(Job.seq).in_(places)))
            views += sorted((JobView(job, "", places[job.key]) for job in waiting), key=lambda view: view.place or 0)
            total = session.exec(select(func.count()).where(col(Job.state).in_(ACTIVE))).one()
            return views[:limit], total

        return await self._db.read(work)

    async def one(self, seq: int, user_id: int | None) -> Job:
        """That job; with `user_id`, only if it is that user's. Raises NotFound."""
        job = await self._db.read(lambda session: session.get(Job, seq))
        if job is None or (user_id is not None and job.user_id != user_id):
            raise NotFound("There is no such job.")
        return job

    async def some(self, seqs: Sequence[int]) -> dict[int, Job]:
        """Those jobs by number, as far as they exist."""
        if not seqs:
            return {}
        query = select(Job).where(col(Job.seq).in_(seqs))
        return {job.key: job for job in await self._db.read(lambda session: session.exec(query).all())}

    async def pictures(self, user_id: int, jobs: int, before: int | None = None) -> tuple[list[Picture], int | None]:
        """Files of the user's finished jobs, newest first, of at most `jobs` jobs; and where the next page begins."""

        def work(session: Session) -> Sequence[tuple[Job, Mapping[str, Any]]]:
            query = (
                select(Job, JobDocument.outputs)
                .join(JobDocument, col(JobDocument.seq) == col(Job.seq))
                .where(Job.user_id == user_id, col(Job.state).in_(FINAL), Job.outputs_count > 0)
            )
            if before is not None:
                query = query.where(col(Job.seq) < before)
            return session.exec(query.order_by(col(Job.seq).desc()).limit(jobs + 1)).all()

        rows = await self._db.read(work)
        found = [picture for job, outputs in rows[:jobs] for picture in pictures_of(job, outputs)]
        return found, rows[jobs - 1][0].key if len(rows) > jobs else None

    async def _titles_of(self, jobs: Iterable[Job]) -> dict[int, str]:
        titles = {job.key: self._titles.get(job.key, "") for job in jobs}
        unknown = [seq for seq in titles if seq not in self._titles]
        if unknown:
            query = select(JobDocument.seq, JobDocument.prompt).where(col(JobDocument.seq).in_(unknown))
            for seq, prompt in await self._db.read(lambda session: session.exec(query).all()):
                titles[seq] = self._titles[seq] = title_of(prompt)
            while len(self._titles) > TITLES_KEPT:
                self._titles.popitem(last=False)
        return titles

    async def _errors_of(self, seqs: Sequence[int]) -> dict[int, str]:
        if not seqs:
            return {}
        query = select(JobDocument.seq, JobDocument.messages).where(col(JobDocument.seq).in_(seqs))
        rows = await self._db.read(lambda session: session.exec(query).all())
        return {seq: error for seq, messages in rows if (error := error_of(messages))}


def title_of(prompt: object) -> str:
    """A line to recognise a prompt by: the first text somebody wrote in it, else what its nodes are."""
    nodes = [node for node in prompt.values() if isinstance(node, dict)] if isinstance(prompt, dict) else []
    # Text encoders first: other nodes' strings are file names and settings more often than words.
    for node in sorted(nodes, key=lambda node: "TextEncode" not in str(node.get("class_type"))):
        inputs = node.get("inputs")
        if not isinstance(inputs, dict):
            continue
        for name in TEXT_INPUTS:
            text = inputs.get(name)
            if isinstance(text, str) and text.strip():
                return _cut(text)
    names = dict.fromkeys(str(node.get("class_type", "?")) for node in nodes)
    return _cut(", ".join(names)) or "Empty prompt"


def pictures_of(job: Job, outputs: object) -> list[Picture]:
    """The files of type `output` in a job's outputs; odd shapes of custom nodes are passed over."""
    found = []
    for ui in outputs.values() if isinstance(outputs, Mapping) else ():
        lists = [items for items in ui.values() if isinstance(items, list)] if isinstance(ui, dict) else []
        for item in (item for items in lists for item in items if isinstance(item, dict)):
            name, subfolder = item.get("filename"), item.get("subfolder", "")
            if isinstance(name, str) and name and isinstance(subfolder, str) and item.get("type") == "output":
                found.append(Picture(job.key, job.prompt_id, name, subfolder, "output", job.ended_ms))
    return found


def error_of(messages: object) -> str:
    """Why a job failed, in one line, out of the messages of its history entry."""
    for message in reversed(messages) if isinstance(messages, list) else ():
        match message:
            case ["execution_error", {"exception_message": str(text)}]:
                return _cut(text, ERROR_LENGTH)
    return ""


def _cut(text: str, length: int = TITLE_LENGTH) -> str:
    # Half a surrogate pair is valid JSON and no valid UTF-8: a page with it could not be sent.
    line = " ".join(text[: 20 * length].encode("utf-8", "replace").decode().split())
    return line if len(line) <= length else line[: length - 1].rstrip() + "…"


def _places(session: Session, seqs: Sequence[int] | None, limit: int | None = None) -> dict[int, int]:
    """Place of each waiting job, of `seqs` or of the first `limit`."""
    if seqs is not None and not seqs:
        return {}
    turn = func.row_number().over(partition_by=col(Job.user_id), order_by=[col(Job.number), col(Job.seq)])
    turns = select(col(Job.seq).label("seq"), turn.label("turn")).where(Job.state == JobState.QUEUED).subquery()
    place = func.row_number().over(order_by=[turns.c.turn, turns.c.seq])
    placed = select(turns.c.seq, place.label("place")).subquery()
    query = select(placed.c.seq, placed.c.place).order_by(placed.c.place)
    if seqs is not None:
        query = query.where(placed.c.seq.in_(seqs))
    if limit is not None:
        query = query.limit(limit)
    return {int(row[0]): int(row[1]) for row in session.exec(query).all()}
