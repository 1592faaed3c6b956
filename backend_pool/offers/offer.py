"""What one backend offers: its node definitions and its model files, as it last told them. Values only."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from backend_pool.prompts.node_info import ObjectInfo

Models = Mapping[str, tuple[str, ...]]
"""Folder, as ComfyUI names it -> its files, as the backend spells them."""


@dataclass(frozen=True, eq=False)
class Offer:
    """One reading; a new one is another object. Empty: it has not told anything yet."""

    info: ObjectInfo = field(default_factory=dict)
    models: Models = field(default_factory=dict)


@dataclass(frozen=True)
class Provider:
    """A backend with its offer, as the union and the matching of jobs see it."""

    key: int
    name: str
    offer: Offer
    reads_user_models: bool = False
    """Whether a user's own models, such as `output/loras`, are where it looks for them."""
