"""A job's whole story for operators: every step with its backend and reason. The user sees one run. Pure."""

from collections.abc import Mapping
from typing import Any, TypedDict

from backend_pool.model import Job


class Chapter(TypedDict):
    """One change of a job. `backend` is a name, None where no backend had it or its row is gone."""

    at_ms: int
    state: str
    why: str
    backend_id: int | None
    backend: str | None
    attempt: int


def story(job: Job, names: Mapping[int, str]) -> list[Chapter]:
    """The job's trail, oldest first; `names` are the backends' by id."""
    return [_chapter(entry, names) for entry in job.trail if isinstance(entry, list) and len(entry) >= 3]


def _chapter(entry: list[Any], names: Mapping[int, str]) -> Chapter:
    backend, attempt = (entry[3], entry[4]) if len(entry) >= 5 else (None, 0)  # rows of earlier versions have three
    return Chapter(
        at_ms=entry[0],
        state=entry[1],
        why=entry[2],
        backend_id=backend,
        backend=None if backend is None else names.get(backend),
        attempt=attempt,
    )
