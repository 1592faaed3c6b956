"""What jobs leave at one stock backend, as far as this process knows: an estimate for its operator. Pure."""

from dataclasses import dataclass

BLOCK = 4096
"""What a file of a few bytes takes on most disks."""


@dataclass
class Remains:
    """Counts since this process began; what earlier ones left is not in them."""

    inputs: int = 0
    input_bytes: int = 0
    notes: int = 0
    """Outputs in whose place a note stands."""
    whole: int = 0
    """Outputs that are there as they were made: previews in temp, which ComfyUI empties when it starts, and others."""
    whole_bytes: int = 0

    @property
    def files(self) -> int:
        """All of them."""
        return self.inputs + self.notes + self.whole

    @property
    def size(self) -> int:
        """Bytes on the backend's disk."""
        return self.input_bytes + self.whole_bytes + self.notes * BLOCK
