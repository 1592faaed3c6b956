"""What a hostile custom node tries, one function each, with what it could know: `Facts` are paths, ids and ports.

Standard library only, so that it runs in any session. An attempt that works returns, one that fails raises OSError.
None does harm when it works: signals are number 0, what is written lies in the directories of the test.
"""

import errno
from typing import Any

from . import on_files, on_privileges, on_processes, on_sockets  # noqa: TID252 - a pack has a name made of its path
from .means import Facts  # noqa: TID252

ATTEMPTS = {
    name: value
    for module in (on_files, on_processes, on_sockets, on_privileges)
    for name, value in vars(module).items()
    if name.startswith("try_")
}


def attempt(name: str, facts: Facts) -> dict[str, Any]:
    """Try it: `{"ok": what came of it}` or `{"error": "EACCES"}`."""
    try:
        return {"ok": repr(ATTEMPTS[name](facts))[:200]}
    except OSError as error:
        return {"error": errno.errorcode.get(error.errno or 0, str(error))}
    except MemoryError:
        return {"error": "ENOMEM"}


def names() -> list[str]:
    """Every attempt there is."""
    return list(ATTEMPTS)
