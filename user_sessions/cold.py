"""A session as a fresh program instead of a fork, for a runtime that cannot be forked once it is imported.

The process is the zygote's child all the same: it is watched, ended and reaped like a fork. Slow and large, since each
imports everything; nothing else differs.
"""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

from proxy.base.errors import Unavailable
from proxy.base.log_file import open_log
from user_sessions.confinement import Confinement
from user_sessions.runtime import SessionSpec

CHILD = "user_sessions.child"
IMPORTS_ITSELF = "It imports everything itself here: set session_start_timeout_s to what that may take."


@dataclass(frozen=True)
class Cold:
    """How such a session is started: `program` runs a module of ours under the runtime's Python."""

    program: Sequence[str]
    runtime: str
    options: Mapping[str, str]
    confinement: Confinement

    def become(self, spec: SessionSpec, parent: int, ready_fd: int) -> NoReturn:
        """Turn this process, just forked, into that program. Raises OSError or Unavailable."""
        orders = {
            "runtime": self.runtime,
            "options": dict(self.options),
            "confinement": self.confinement.to_json(),
            "spec": spec.to_json(),
            "parent": parent,
            "ready_fd": ready_fd,
        }
        read, write = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(write, False)
        text = json.dumps(orders).encode()
        if os.write(write, text) != len(text):  # the pipe holds 64 KiB, orders a few
            raise Unavailable("The session's paths are too long to hand over.")
        os.close(write)
        output = open_log(spec.log)
        for source, target in ((read, 0), (output, 1), (output, 2)):
            os.dup2(source, target)
        os.set_inheritable(ready_fd, True)
        program = list(self.program) if self.program else [sys.executable, "-m"]
        os.execv(program[0], [*program, CHILD])  # noqa: S606 - our own program, no shell
