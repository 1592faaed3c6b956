"""What can go wrong between us and a backend, by what the runner should do next.

BackendError
├── BackendGone      no answer: the job may run elsewhere, once it is sure that it does not run here
│   └── BackendBroken    an answer only a broken server gives (5xx, no JSON)
│       └── BackendBusy      it answers, and has something else to do: not its fault
├── BackendRefused   it answered and said no: the user's error, `body` is ComfyUI's JSON
├── FileGone         a file it announced cannot be fetched
│   └── FileAbsent       it does not have the file
└── Swept            a file out of its cache is nowhere any more: the job has to be rendered again
"""

from typing import Any


class BackendError(Exception):
    """Root of a backend's failures."""


class BackendGone(BackendError):
    """The backend does not answer, or dropped the connection."""


class BackendBroken(BackendGone):
    """The backend answers with 5xx or with what is no JSON."""


class BackendBusy(BackendBroken):
    """The worker is at work for somebody else."""


class BackendRefused(BackendError):
    """The backend judged the request and refused; `body` is its JSON or the beginning of its text."""

    def __init__(self, message: str, body: Any) -> None:
        super().__init__(message)
        self.message = message
        self.body = body


class FileGone(BackendError):
    """A file that the backend announced is not there."""


class FileAbsent(FileGone):
    """The backend does not have a file that it announced, or refuses to hand it out."""


class Swept(BackendError):
    """A file that the backend served again from its cache was cleared away there, and the user has deleted it."""
