"""Who hears of jobs: the seam between the runners and the browsers' sockets."""

from typing import Protocol

from backend_pool.comfy.frames import Frame
from backend_pool.model import Job


class JobListener(Protocol):
    """Both calls return at once: delivery is the listener's business and never holds a runner up."""

    def frame(self, job: Job, frame: Frame) -> None:
        """A frame for the tab that submitted `job`."""

    def queue_changed(self, user_id: int) -> None:
        """The user's queue_remaining may have changed: a `status` frame is due."""
