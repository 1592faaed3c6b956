"""The seam between the controller and what runs sessions: few verbs, three answers, no guesses.

`HostSpawner` talks to a session host; `ChildSpawner` (its own module) starts plain child processes where forking from a
zygote is impossible.
"""

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import aiohttp

from proxy.base.errors import Conflict, Unavailable, Warming
from user_sessions.report import Refresh, Report
from user_sessions.run_dir import host_socket
from user_sessions.runtime import SessionSpec

TOKEN_SUFFIX = ".token"  # noqa: S105 - a file name's ending
CALL_TIMEOUT_S = 5.0
MARGIN_S = 10.0

State = Literal["running", "exited", "unknown"]


@dataclass(frozen=True)
class Poll:
    """What is known of a session. Only `exited` is conclusive; `unknown` is never dead."""

    session_id: str
    state: State
    ready: bool = False
    pid: int | None = None
    code: int | None = None
    error: str = ""
    outdated: bool = False
    """It runs, from before the latest refresh."""
    memory: int | None = None
    """Bytes, where it was asked for."""


class Spawner(Protocol):
    """Starts, looks at and ends session processes."""

    async def start(self, spec: SessionSpec) -> Poll:
        """Start a session and return once it answers; the same id again is harmless. Raises Conflict when the user
        has another session, Unavailable (with the end of the log in `details`) when it does not come up."""

    async def poll(self, session_id: str) -> Poll:
        """What is known of it. Does not raise: an unreachable host means `unknown`."""

    async def stop(self, session_id: str) -> None:
        """End a session; returns when it is gone, or never was. Raises Unavailable when that is not certain."""

    async def listing(self, *, memory: bool = False) -> list[Poll]:
        """All running sessions: one missing here does not run. Raises Unavailable when that cannot be said."""

    async def refresh(self, by: str) -> Refresh:
        """Begin to prepare new sessions afresh, for changed nodes or models; returns at once, `report` tells the rest.
        Running sessions go on and are outdated. `by` is who asks. Raises Unavailable."""

    async def report(self) -> Report:
        """How the latest refresh goes, and what could not be loaded. Raises Unavailable."""

    async def close(self) -> None:
        """Let go of connections; sessions go on."""


class Keeper(Protocol):
    """What must be there before sessions can start, for the whole life of a server. `run` is the run directory."""

    run: Path

    def spawner(self) -> Spawner:
        """What starts sessions here."""

    async def ensure(self) -> None:
        """Return once sessions can start. Raises Unavailable or ConfigError."""

    async def stop(self) -> bool:
        """End it, and with it its sessions; whether none is left. Raises Unavailable."""


class HostSpawner:
    """A `Spawner` over a session host's control socket.

    `revive` is called when nobody listens there, before one more try: it starts the host again, or raises.
    """

    def __init__(
        self,
        run: Path,
        start_timeout_s: float,
        stop_timeout_s: float,
        revive: Callable[[], Awaitable[None]] | None = None,
        call_timeout_s: float = CALL_TIMEOUT_S,
    ) -> None:
        self._socket = host_socket(run)
        self._start_timeout_s = start_timeout_s + MARGIN_S
        self._stop_timeout_s = stop_timeout_s + MARGIN_S
        self._call_timeout_s = call_timeout_s
        self._revive = revive
        self._reviving = asyncio.Lock()
        self._client: aiohttp.ClientSession | None = None

    async def start(self, spec: SessionSpec) -> Poll:
        """See Spawner."""
        return _poll(await self._call("POST", "/sessions", self._start_timeout_s, spec.to_json()))

    async def poll(self, session_id: str) -> Poll:
        """See Spawner."""
        try:
            return _poll(await self._once("GET", f"/sessions/{session_id}", self._call_timeout_s))
        except (Unavailable, Conflict) as error:
            return Poll(session_id, "unknown", error=error.message)

    async def stop(self, session_id: str) -> None:
        """See Spawner."""
        await self._call("DELETE", f"/sessions/{session_id}", self._stop_timeout_s)

    async def listing(self, *, memory: bool = False) -> list[Poll]:
        """See Spawner."""
        if memory:  # somebody looks at a page: no reason to start a host
            answer = await self._once("GET", "/sessions?memory", self._call_timeout_s)
        else:
            answer = await self._call("GET", "/sessions", self._call_timeout_s)
        try:
            return [_poll(entry) for entry in answer["sessions"]]
        except (KeyError, TypeError) as error:
            raise Unavailable("The session host answered something else than a list of sessions.") from error

    async def health(self) -> dict[str, Any]:
        """The host's own account of itself. Raises Unavailable; revives nothing."""
        return await self._once("GET", "/health", self._call_timeout_s)

    async def refresh(self, by: str) -> Refresh:
        """See Spawner. Revives nothing: a host that starts now is as fresh as can be."""
        answer = await self._once("POST", "/zygote/refresh", self._call_timeout_s, {"by": by})
        return Refresh.from_json(answer.get("refresh"))

    async def report(self) -> Report:
        """See Spawner."""
        return Report.from_json(await self.health())

    async def shut_down(self) -> None:
        """End the host and every session. Raises Unavailable."""
        await self._once("POST", "/shutdown", self._call_timeout_s)

    async def close(self) -> None:
        """See Spawner."""
        if self._client is not None:
            await self._client.close()
            self._client = None

    async def _call(self, method: str, path: str, timeout_s: float, body: object = None) -> dict[str, Any]:
        """`_once`, with one revival of a host that is gone. A request that reached a host is never sent twice."""
        try:
            return await self._once(method, path, timeout_s, body)
        except HostGone:
            if self._revive is None:
                raise
        async with self._reviving:
            await self._revive()
        return await self._once(method, path, timeout_s, body)

    async def _once(self, method: str, path: str, timeout_s: float, body: object = None) -> dict[str, Any]:
        if self._client is None:
            # One connection a call: a pooled one may belong to a host that is gone, and a retry could start twice.
            self._client = aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(self._socket), force_close=True))
        limit = aiohttp.ClientTimeout(total=timeout_s)
        headers = {"Authorization": f"Bearer {self._token()}"}
        try:
            async with self._client.request(
                method, f"http://session-host{path}", json=body, headers=headers, timeout=limit
            ) as response:
                return _answer(response.status, await response.read())
        except (aiohttp.ClientConnectorError, FileNotFoundError, ConnectionRefusedError) as error:
            raise HostGone(f"No session host listens on {self._socket}. Start it, or restart the server.") from error
        except TimeoutError as error:
            raise Unavailable(
                f"The session host did not answer within {timeout_s:g} s. Its log may say why."
            ) from error
        except (aiohttp.ClientError, OSError) as error:
            raise Unavailable(f"The session host broke off: {error}. Its log may say why.") from error

    def _token(self) -> str:
        """Read each time, since every host makes its own; a few bytes from the page cache."""
        try:
            return self._socket.with_suffix(TOKEN_SUFFIX).read_text()
        except OSError as error:
            raise HostGone(f"There is no session host at {self._socket}. Start it, or restart the server.") from error


class HostGone(Unavailable):
    """Nobody listens on the control socket; the request was not taken."""


def _answer(status: int, body: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(body)
    except ValueError:
        answer = None
    if status == 200 and isinstance(answer, dict):
        return answer
    message, details, kind = f"The session host answered with status {status}.", "", ""
    if isinstance(answer, dict):
        with contextlib.suppress(KeyError, TypeError):
            message, details = str(answer["error"]["message"]), str(answer["error"]["details"])
            kind = str(answer["error"]["type"])
    if kind == Warming.kind:
        raise Warming(message, details)
    raise (Conflict if status == 409 else Unavailable)(message, details)


def _poll(answer: Mapping[str, Any]) -> Poll:
    try:
        state = answer["state"]
        if state not in ("running", "exited", "unknown"):
            raise ValueError(state)
        return Poll(
            session_id=str(answer["session_id"]),
            state=state,
            ready=answer.get("ready") is True,
            pid=answer.get("pid"),
            code=answer.get("code"),
            error=str(answer.get("error") or ""),
            outdated=answer.get("outdated") is True,
            memory=answer.get("memory"),
        )
    except (KeyError, ValueError, AttributeError, TypeError) as error:
        raise Unavailable("The session host's answer made no sense. Are proxy and host of one version?") from error
