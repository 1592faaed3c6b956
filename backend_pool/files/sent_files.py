"""Which input files one backend holds, as far as this process sent or saw them: nothing is sent or asked for twice.

Trust ends after a while and with any break of the connection, for a backend may have been restarted or tidied then.
What was used longest ago is emptied there once all of it holds too much.
"""

from collections import OrderedDict

from backend_pool.comfy.client import ComfyClient, FileRef
from proxy.base.clock import monotonic_s

TRUST_S = 300.0
REMEMBERED = 50_000
"""Files; the longest unused is forgotten first, and stays where it is."""


class SentFiles:
    """One backend's input files of all users; names are of content, so a name says what is in it."""

    def __init__(self, client: ComfyClient) -> None:
        self._client = client
        self._files: OrderedDict[FileRef, tuple[int, float]] = OrderedDict()
        """Size, and since when it is known to be there; the longest unused first."""
        self._breaks = client.breaks

    def __len__(self) -> int:
        return len(self._files)

    @property
    def total_bytes(self) -> int:
        """What all of them hold."""
        return self._client.remains.input_bytes

    def holds(self, ref: FileRef) -> bool:
        """Whether the backend surely has it."""
        if self._breaks != self._client.breaks:
            self.doubt()
        known = self._files.get(ref)
        if known is None or monotonic_s() - known[1] > TRUST_S:
            return False
        self._files.move_to_end(ref)
        return True

    def note(self, ref: FileRef, size: int) -> None:
        """It is there: sent, or seen."""
        self._drop(ref)
        self._files[ref] = (size, monotonic_s())
        self._count(1, size)
        while len(self._files) > REMEMBERED:
            self._drop(next(iter(self._files)))

    def doubt(self) -> None:
        """Ask about each of them again before it is relied on."""
        self._breaks = self._client.breaks
        for ref, (size, _) in self._files.items():
            self._files[ref] = (size, -TRUST_S)

    async def shrink(self, limit_bytes: int) -> None:
        """Empty files, the longest unused first, until the rest holds no more than the limit. Raises BackendError."""
        while self.total_bytes > limit_bytes and len(self._files) > 1:
            ref = next(iter(self._files))
            self._drop(ref)
            await self._client.overwrite(ref, b"")

    def _drop(self, ref: FileRef) -> None:
        known = self._files.pop(ref, None)
        if known is not None:
            self._count(-1, -known[0])

    def _count(self, files: int, size: int) -> None:
        self._client.remains.inputs += files
        self._client.remains.input_bytes += size
