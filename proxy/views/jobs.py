"""Jobs as pages and API show them: read-only queries. Reads no prompt twice and never more than a page of rows.

What a job may expect comes from the latest forecast (docs/forecasts.md), and is not known in the first moments.
"""

import math
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, and_, func, or_
from sqlmodel import Session, col, select

from backend_pool.forecasts.outlook import Outlook
from backend_pool.forecasts.outlooks import Outlooks
from backend_pool.job_state import ACTIVE, FINAL, ON_BACKEND, JobState
from backend_pool.model import Job, JobDocument
from proxy.base.clock import now_ms
from proxy.base.database import Database
from proxy.base.errors import NotFound

TITLE_LENGTH = 90
ERROR_LENGTH = 240
TITLES_KEPT = 2000
NOTHING_KNOWN = Outlook()
TURN: list[Any] = [col(Job.priority).desc(), col(Job.number), col(Job.seq)]
"""A user's own jobs in the order of their turns."""
BY_USER: list[Any] = [col(Job.user_id), col(Job.number), col(Job.seq)]
"""As an index has them."""
TEXT_INPUTS = ("text", "prompt", "positive", "value", "string", "t5xxl", "clip_l")


@dataclass(frozen=True)
class JobView:
    """One job."""

    job: Job
    title: str
    outlook: Outlook = NOTHING_KNOWN
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

    def __init__(self, db: Database, outlooks: Outlooks) -> None:
        self._db = db
        self._outlooks = outlooks
        self._titles: OrderedDict[int, str] = OrderedDict()

    async def of_user(self, user_id: int, active: int, finished: int) -> list[JobView]:
        """The user's active jobs, the next to run first, then the latest finished ones."""

        def work(session: Session) -> tuple[list[Job], list[Job], list[Job]]:
            mine = select(Job).where(Job.user_id == user_id)
            running = mine.where(col(Job.state).in_(ON_BACKEND)).order_by(col(Job.seq)).limit(active)
            # Priorities go downwards and numbers upwards, which no index does: sorted without their rows, in an index.
            queued = select(Job.seq).where(Job.user_id == user_id, Job.state == JobState.QUEUED)
            waiting = select(Job).where(col(Job.seq).in_(queued.order_by(*TURN).limit(active))).order_by(*TURN)
            ended = mine.where(col(Job.state).in_(FINAL)).order_by(col(Job.ended_ms).desc(), col(Job.seq).desc())
            return list(session.exec(running)), list(session.exec(waiting)), list(session.exec(ended.limit(finished)))

        running, waiting, ended = await self._db.read(work)
        waiting = waiting[: max(0, active - len(running))]
        jobs = [*running, *waiting, *ended]
        titles = await self._titles_of(jobs)
        errors = await self._errors_of([job.key for job in ended if job.state == JobState.FAILED])
        ranks = {job.key: rank for rank, job in enumerate(waiting)}
        views = [
            JobView(job, titles[job.key], self._outlook(job, ranks.get(job.key)), errors.get(job.key)) for job in jobs
        ]
        return sorted(views, key=_expected)

    async def active_count(self, user_id: int) -> int:
        """How many jobs of the user wait or run."""
        query = select(func.count()).where(Job.user_id == user_id, col(Job.state).in_(ACTIVE))
        return await self._db.read(lambda session: session.exec(query).one())

    async def queue(self, limit: int) -> tuple[list[JobView], int]:
        """Everybody's running jobs, then the waiting ones as they are expected to start; and how many there are in all.
        Without titles: what people write is theirs."""
        first = list(self._outlooks.order[:limit])

        def work(session: Session) -> tuple[list[Job], int]:
            running = select(Job).where(col(Job.state).in_(ON_BACKEND)).order_by(col(Job.seq)).limit(limit)
            waiting = select(Job).where(Job.state == JobState.QUEUED)
            foreseen = {job.key: job for job in session.exec(waiting.where(col(Job.seq).in_(first)))}
            jobs = [*session.exec(running), *(foreseen[seq] for seq in first if seq in foreseen)]
            if len(jobs) < limit:  # too far back to be foreseen one by one, or just come
                rest = waiting.where(col(Job.seq).not_in(first)).order_by(*BY_USER)
                jobs += session.exec(rest.limit(limit - len(jobs)))
            return jobs[:limit], session.exec(select(func.count()).where(col(Job.state).in_(ACTIVE))).one()

        jobs, total = await self._db.read(work)
        return [JobView(job, "", self._outlook(job)) for job in jobs], total

    async def one(self, seq: int, user_id: int | None) -> Job:
        """That job; with `user_id`, only if it is that user's. Raises NotFound."""
        job = await self._db.read(lambda session: session.get(Job, seq))
        if job is None or (user_id is not None and job.user_id != user_id):
            raise NotFound("There is no such job.")
        return job

    async def some(self, seqs: Sequence[int]) -> dict[int, JobView]:
        """Those jobs by number, as far as they exist, without titles."""
        if not seqs:
            return {}
        query = select(Job).where(col(Job.seq).in_(seqs))
        jobs = await self._db.read(lambda session: session.exec(query).all())
        return {job.key: JobView(job, "", self._outlook(job)) for job in jobs}

    async def of_name(self, name: str, user_id: int) -> JobView:
        """One of the user's jobs by its prompt id, or else by its number here. Raises NotFound."""

        def work(session: Session) -> tuple[Job | None, int]:
            mine = select(Job).where(Job.user_id == user_id)
            job = session.exec(mine.where(Job.prompt_id == name)).first()
            if job is None and name.isascii() and name.isdigit() and len(name) < 19:
                job = session.exec(mine.where(Job.seq == int(name))).first()
            if job is None or job.state != JobState.QUEUED:
                return job, 0
            before = select(func.count()).where(Job.user_id == user_id, Job.state == JobState.QUEUED, _earlier(job))
            return job, session.exec(before).one()

        job, rank = await self._db.read(work)
        if job is None:
            raise NotFound("There is no such job.")
        titles = await self._titles_of([job])
        errors = await self._errors_of([job.key] if job.state == JobState.FAILED else [])
        return JobView(job, titles[job.key], self._outlook(job, rank), errors.get(job.key))

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

    def _outlook(self, job: Job, rank: int | None = None) -> Outlook:
        """Nothing of an older forecast that is not true any more."""
        outlook = self._outlooks.of(job.key, job.user_id, rank)
        waits = job.state == JobState.QUEUED
        if outlook is None or job.state in FINAL or waits != bool(outlook.reason):
            return NOTHING_KNOWN
        return outlook.as_of(now_ms())

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


def _expected(view: JobView) -> tuple[int, float]:
    """Where it stands among one user's: an own job that can run now passes one that cannot."""
    if view.job.state == JobState.QUEUED:
        return 1, view.outlook.position or math.inf
    return (2 if view.job.state in FINAL else 0), 0


def _earlier(job: Job) -> ColumnElement[bool]:
    """Jobs of the same user whose turn comes before that one's."""
    alike = and_(col(Job.priority) == job.priority, col(Job.number) == job.number, col(Job.seq) < job.key)
    sooner = and_(col(Job.priority) == job.priority, col(Job.number) < job.number)
    return or_(col(Job.priority) > job.priority, sooner, alike)
