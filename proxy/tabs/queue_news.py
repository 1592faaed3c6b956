"""Pushes to open tabs what their user's jobs may expect, whenever a forecast changes it.

At most once per forecast, only one's own jobs, and only to tabs whose socket asked for it, as our extension in the
WebUI does: programs are told nothing that ComfyUI does not say (client demands B9).
"""

from backend_pool.comfy.frames import encode
from backend_pool.forecasts.outlooks import Outlooks
from proxy.base.clock import now_ms
from proxy.tabs.user_events import UserEvents

KIND = "cluster_queue"
"""Kind of the frame; `webui.js` listens to it."""


class QueueNews:
    """Hears of `Outlooks.on_change`."""

    def __init__(self, outlooks: Outlooks, events: UserEvents) -> None:
        self._outlooks = outlooks
        self._events = events

    def changed(self, users: set[int]) -> None:
        """Tell these users' tabs, with the server's time: browsers' clocks are often wrong."""
        now = now_ms()
        for user_id in users:
            jobs = [
                {
                    "id": seq,
                    "position": outlook.position,
                    "expected_start_ms": outlook.start_ms,
                    "expected_end_ms": outlook.end_ms,
                    "reason": outlook.reason or None,
                }
                for seq, outlook in ((seq, known.as_of(now)) for seq, known in self._outlooks.of_user(user_id))
            ]
            self._events.queue_news(user_id, encode(KIND, {"now_ms": now, "jobs": jobs}))
