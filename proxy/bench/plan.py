"""The load of a bench: who queues what, and when, out of a seed. Pure, so that each way of placing gets the same.

Most users have more to do than the pool can do at once, all about as much, in jobs of different lengths; the others,
the light ones, come now and then with one short job. Each user works with one model most of the time. Users of
different weights queue work in that proportion, so that all have something waiting for about as long.
"""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MODELS = ("bench-a.safetensors", "bench-b.safetensors", "bench-c.safetensors")
"""2 GiB each, and an engine's memory holds one of them."""
VRAM_MB = 3000
STEPS = (2, 4, 8)
"""Lengths of the busy users' jobs."""
LIGHT_JOBS = 3
"""Of each light user."""
OTHER_MODEL = 0.15
"""Share of a user's jobs with another model than their usual one."""
WEIGHTS = (1.0, 2.0, 4.0)
"""Of the busy users, where they have different ones."""


@dataclass(frozen=True)
class Load:
    """How much, for how many engines. `_ms` milliseconds, `_s` seconds."""

    users: int = 30
    light: int = 5
    engines: int = 8
    jobs: int = 600
    seed: int = 1
    step_ms: float = 300.0
    load_ms: float = 1500.0
    """Loading one of the models."""
    arrive_s: float = 10.0
    """Busy users queue all their jobs within this time."""
    affinity_s: float = 2.0
    """A tenth of the usual unfairness, for jobs that take about a tenth of the usual time."""

    def engine_args(self) -> list[str]:
        """What its engines are started with."""
        sizes = ["--vram-mb", str(VRAM_MB), "--model-load-ms", str(self.load_ms / 2), "--checkpoints", ",".join(MODELS)]
        return ["--step-ms", str(self.step_ms), "--preview-method", "none", *sizes]


@dataclass(frozen=True)
class Order:
    """One job to be queued by the user of that place, `at_s` seconds after the start."""

    user: int
    at_s: float
    model: str
    steps: int
    seed: int
    light: bool = False

    def prompt(self) -> dict[str, Any]:
        """What is submitted."""
        return sampled(self.model, self.steps, self.seed)


def weights(load: Load, *, different: bool) -> dict[int, float]:
    """Weights of the busy users. Different ones fall on each length of jobs and on each model alike."""
    return {
        user: WEIGHTS[(user + user // len(STEPS)) % len(WEIGHTS)] if different else 1.0
        for user in range(load.users - load.light)
    }


def orders(load: Load, weighted: Mapping[int, float]) -> list[Order]:
    """All jobs of a load, the earliest first, with the busy users' weights. Those after them are the light ones."""
    chance = random.Random(load.seed)  # noqa: S311 - a repeatable load, no secret
    busy = len(weighted)
    jobs = {user: weight / STEPS[user % len(STEPS)] for user, weight in weighted.items()}
    each = (load.jobs - LIGHT_JOBS * load.light) / sum(jobs.values())
    found: list[Order] = []
    for user in range(busy):
        steps = STEPS[user % len(STEPS)]
        usual = MODELS[user // len(STEPS) % len(MODELS)]
        for _ in range(max(1, round(each * jobs[user]))):
            model = chance.choice(MODELS) if chance.random() < OTHER_MODEL else usual
            found.append(Order(user, chance.uniform(0, load.arrive_s), model, steps, chance.getrandbits(32)))
    lasts_s = sum(order.steps for order in found) * load.step_ms / 1000 / load.engines
    for user in range(busy, load.users):
        for _ in range(LIGHT_JOBS):
            at_s = chance.uniform(load.arrive_s, max(load.arrive_s, lasts_s * 0.8))
            found.append(Order(user, at_s, chance.choice(MODELS), min(STEPS), chance.getrandbits(32), light=True))
    return sorted(found, key=lambda order: order.at_s)


def sampled(model: str, steps: int, seed: int) -> dict[str, Any]:
    """A small picture with that model; each step takes the engine's step time."""

    def node(kind: str, **inputs: Any) -> dict[str, Any]:
        return {"class_type": kind, "inputs": inputs}

    return {
        "1": node("CheckpointLoaderSimple", ckpt_name=model),
        "2": node("CLIPTextEncode", text="a bench", clip=["1", 1]),
        "3": node("EmptyLatentImage", width=64, height=64, batch_size=1),
        "4": node(
            "KSampler", model=["1", 0], positive=["2", 0], negative=["2", 0], latent_image=["3", 0], seed=seed,
            steps=steps, cfg=7.0, sampler_name="euler", scheduler="normal", denoise=1.0,
        ),
        "5": node("VAEDecode", samples=["4", 0], vae=["1", 2]),
        "6": node("SaveImage", images=["5", 0], filename_prefix="bench"),
    }  # fmt: skip
