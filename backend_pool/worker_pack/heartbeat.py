"""Tells the proxy again and again that this worker lives, and takes the dispatcher's secret from its answers.

A thread of its own: ComfyUI's loop may be busy, and nothing that happens to the proxy may touch ComfyUI.
"""

import json
import logging
import random
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable

from .config import Config
from .host import Json
from .wire import HEARTBEAT_PATH

log = logging.getLogger("comfyui-cluster-worker")

TIMEOUT_S = 10.0
LONGEST_PAUSE_S = 30.0
LISTEN_LOOK_S = 0.2
LISTEN_WITHIN_S = 600.0
SHORTEST_S, LONGEST_S = 0.2, 60.0


class Heartbeat:
    """Posts until `stop`. `address` is where this server listens: there is nothing to tell before it does."""

    def __init__(
        self,
        config: Config,
        describe: Callable[[], Json],
        learn: Callable[[Json], None],
        address: Callable[[], tuple[str, int] | None],
    ) -> None:
        self._config = config
        self._describe = describe
        self._learn = learn
        self._address = address
        self._stop = threading.Event()
        self._trouble: str | None = None
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        self._thread = threading.Thread(target=self._beat, name="cluster heartbeat", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End, within a moment."""
        self._stop.set()

    def _beat(self) -> None:
        port = self._listening()
        failures = 0
        every_s = self._config.heartbeat_s
        while not self._stop.is_set():
            try:
                answer = self._post({**self._describe(), "port": port})
                self._learn(answer)
                every_s = min(max(float(answer.get("every_s", every_s)), SHORTEST_S), LONGEST_S)
                failures = 0
                self._say(None)
            except Exception as error:  # of any kind: ComfyUI goes on, and so does this
                failures += 1
                self._say(said(error))
            pause_s = min(every_s * 2 ** min(failures, 6), max(LONGEST_PAUSE_S, every_s)) if failures else every_s
            self._stop.wait(pause_s * random.uniform(0.8, 1.2))  # noqa: S311

    def _listening(self) -> int | None:
        """Wait until the server takes connections; its port."""
        deadline = time.monotonic() + LISTEN_WITHIN_S
        while not self._stop.is_set() and time.monotonic() < deadline:
            found = self._address()
            if found is not None:
                try:
                    socket.create_connection(found, 1.0).close()
                except OSError:
                    pass
                else:
                    return found[1]
            self._stop.wait(LISTEN_LOOK_S)
        return None

    def _post(self, body: Json) -> Json:
        request = urllib.request.Request(  # noqa: S310 - http or https, as the installer has checked
            self._config.server.rstrip("/") + HEARTBEAT_PATH,
            data=json.dumps(body).encode(),
            headers={"Content-Type": "application/json", "Authorization": f"Bearer {self._config.token}"},
        )
        with self._opener.open(request, timeout=TIMEOUT_S) as response:
            answer = json.loads(response.read(1024 * 1024))
        return answer if isinstance(answer, dict) else {}

    def _say(self, trouble: str | None) -> None:
        """One line per change."""
        if trouble == self._trouble:
            return
        self._trouble = trouble
        if trouble is None:
            log.info("Registered with the cluster at %s", self._config.server)
        else:
            log.warning("The cluster at %s does not take this worker: %s. Trying on.", self._config.server, trouble)


def said(error: Exception) -> str:
    """In words, the proxy's own where it has some."""
    if isinstance(error, urllib.error.HTTPError):
        try:
            return str(json.loads(error.read(65536))["error"]["message"])
        except (ValueError, KeyError, TypeError, OSError):
            return f"it answered {error.code}"
    if isinstance(error, urllib.error.URLError):
        return str(error.reason)
    return str(error) or type(error).__name__
