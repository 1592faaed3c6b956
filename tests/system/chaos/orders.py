"""What users of the trial queue: small jobs whose every file says whose it is, by its colour or the prompt in it."""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.contract.graphs import Prompt, empty_image, node
from tests.system.people import painting

UPLOAD = "mine.png"
"""Every user has an input of this name; its colour is the user's."""
SIDE = 24
KINDS = ("plain", "painted", "loaded", "alike", "both")
REPEATED = frozenset({"loaded", "alike"})
"""Kinds whose picture a user queues more than once."""
WEIGHTS = (3, 4, 2, 1, 2)


@dataclass
class Order:
    """One prompt and what must come of it. `marks`: node that saves, and the colour its picture must have."""

    kind: str
    prompt_id: str
    prompt: Prompt
    saves: tuple[str, ...]
    marks: dict[str, int] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)
    front: bool = False
    cancel: bool = False
    """Its user means to cancel it."""


def own_colour(user: int) -> int:
    """The colour of a user's input picture."""
    return 0xF00000 | user


def title(user: int) -> str:
    """What nodes of a user's prompts are called; it ends up in the files."""
    return f"of user {user}"


def orders(user: int, seed: int) -> Iterator[Order]:
    """A user's jobs, without end, the same for the same seed."""
    chance = random.Random(f"{seed}/{user}")
    number = 0
    while True:
        number += 1
        (kind,) = chance.choices(KINDS, WEIGHTS)
        order = _order(kind, user, number, chance)
        for each in order.prompt.values():
            each["_meta"] = {"title": title(user)}
        order.front = chance.random() < 0.1
        order.cancel = chance.random() < 0.1
        yield order


def _order(kind: str, user: int, number: int, chance: random.Random) -> Order:
    prompt_id = f"chaos-{user}-{number}"
    colour = user << 16 | number
    if kind == "plain":
        return Order(kind, prompt_id, _marked(colour), ("m",), {"m": colour})
    if kind == "loaded":
        prompt = {"1": node("LoadImage", image=UPLOAD), "m": node("SaveImage", images=["1", 0], filename_prefix="in")}
        prompt["w"] = node("PrimitiveString", value=f"{number}")
        prompt["t"] = node("PreviewAny", source=["w", 0])  # makes it new, so that a backend really runs it
        return Order(kind, prompt_id, prompt, ("m",), {"m": own_colour(user)})
    if kind == "alike":  # the same for all: a backend may have it from another user's job
        return Order(kind, prompt_id, _marked(chance.randrange(3)), ("m",))
    steps = chance.randrange(4, 30)
    prompt = painting(colour, steps, "paint")
    extra = {"preview_method": chance.choice(["auto", "none"])}
    if kind == "painted":
        return Order(kind, prompt_id, prompt, ("9",), extra=extra)
    return Order(kind, prompt_id, {**prompt, **_marked(colour)}, ("9", "m"), {"m": colour}, extra)


def _marked(colour: int) -> Prompt:
    return {
        "e": empty_image(colour, SIDE, SIDE),
        "m": node("SaveImage", images=["e", 0], filename_prefix="sub/mark"),
        "p": node("PreviewImage", images=["e", 0]),
    }
