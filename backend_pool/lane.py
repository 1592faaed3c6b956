"""The two lanes of the queue."""

from enum import StrEnum


class Lane(StrEnum):
    """Batch work runs where no interactive job waits; what waited long enough counts as interactive."""

    INTERACTIVE = "interactive"
    BATCH = "batch"
