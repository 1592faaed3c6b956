"""Tells open tabs when their user's group comes near its quota, has used it up, or may go on.

Only tabs whose socket asked to be told of the queue, as our extension does (client demands B9).
"""

from backend_pool.books.groups import Groups
from backend_pool.books.quotas import notice
from backend_pool.comfy.frames import encode
from proxy.tabs.user_events import UserEvents

KIND = "cluster_share"
"""Kind of the frame; `webui_share.js` listens to it."""


class QuotaNews:
    """Hears of `Groups.on_quota`."""

    def __init__(self, groups: Groups, events: UserEvents, contact: str) -> None:
        self._groups = groups
        self._events = events
        self._contact = contact

    def changed(self, users: list[int]) -> None:
        """Tell these users' tabs how their group stands now."""
        for user_id in users:
            quota = self._groups.quota(user_id)
            text = None if quota is None else notice(quota, self._contact)
            self._events.queue_news(user_id, encode(KIND, {"notice": text}))
