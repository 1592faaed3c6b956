"""Whether a backend can run a prompt: it has the nodes as the prompt uses them, and the files. Pure.

Choices are compared in the lists of every backend. Where backends define a class differently, the whole prompt is
validated against the definitions of those that part from what users see.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from backend_pool.files.user_models import OWN_INPUTS
from backend_pool.offers.offer import Provider
from backend_pool.offers.pool_info import PoolInfo
from backend_pool.prompts.needs import Choice, Needs, lacks, needs, offers
from backend_pool.prompts.reach import reached
from backend_pool.prompts.spelling import respelled
from backend_pool.prompts.validation import validate


@dataclass(frozen=True)
class Demands:
    """What one prompt asks of a backend, seen against one state of the pool."""

    needs: Needs
    unfit: Mapping[int, str] = field(default_factory=dict)
    """Backends whose own definition of a node does not take what the prompt gives it, and what in words."""
    own_models: tuple[Choice, ...] = ()
    """Models of the user's own."""


def demands(prompt: Mapping[str, Any], targets: Iterable[str], pool: PoolInfo, *, settled: bool = True) -> Demands:
    """Read them off a validated prompt. A model that nobody lists is the user's own where a backend can read those.
    Otherwise it has gone from the pool: when the pool is `settled`, its backends all heard, they may say so themselves.
    """
    targets = list(targets)
    wanted = needs(prompt, pool.union, reached(prompt, targets))
    unlisted = {choice for choice in wanted.choices if choice.node in pool.union and not offers(pool.union, choice)}
    own = {c for c in unlisted if pool.own_models and c.input.rpartition(".")[2] in OWN_INPUTS}
    kept = wanted.choices - (unlisted if settled else own)
    return Demands(Needs(wanted.classes, kept), _unfit(prompt, targets, wanted, pool), tuple(sorted(own, key=str)))


def lacking(asked: Demands, provider: Provider) -> str | None:
    """What a backend lacks for a prompt, in words; None when it can run it."""
    missing = lacks(asked.needs, provider.offer.info)
    if missing is not None or provider.key in asked.unfit:
        return missing or asked.unfit[provider.key]
    return asked.own_models[0].words if asked.own_models and not provider.reads_user_models else None


def _unfit(prompt: Mapping[str, Any], targets: list[str], wanted: Needs, pool: PoolInfo) -> dict[int, str]:
    found: dict[int, str] = {}
    apart = {name: keys for name in wanted.classes if (keys := pool.varied.get(name))}
    for provider in pool.providers:
        names = sorted(name for name, keys in apart.items() if provider.key in keys)
        if not names or not wanted.classes <= provider.offer.info.keys():
            continue
        info = provider.offer.info
        verdict = validate(respelled(prompt, info), info, targets=targets)
        refused = {
            entry["class_type"]
            for entry in verdict.node_errors.values()
            if any(error["type"] != "value_not_in_list" for error in entry["errors"])
        }
        if refused or not (verdict.ok or verdict.node_errors):
            found[provider.key] = f"a version of node {min(refused, default=names[0])} that takes its inputs"
    return found
