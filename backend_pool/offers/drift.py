"""How the backends of a pool have drifted apart: what each lacks that others have, what it defines in its own way.

Pure. Hidden models and denied nodes count too: this is for administrators.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from backend_pool.offers.node_union import merge
from backend_pool.offers.offer import Provider
from backend_pool.prompts.spelling import spelled


@dataclass(frozen=True)
class Drift:
    """One backend beside the others. Models are `folder/name`."""

    key: int
    name: str
    nodes: int
    models: int
    lacks_nodes: list[str]
    lacks_models: list[str]
    differs: list[str]


def compare(providers: Sequence[Provider]) -> list[Drift]:
    """Each backend, in the order given."""
    nodes = [set(provider.offer.info) for provider in providers]
    models = [_models(provider) for provider in providers]
    all_nodes, all_models = set[str]().union(*nodes), set[str]().union(*models)
    varied = merge([provider.offer.info for provider in providers]).varied
    return [
        Drift(
            provider.key,
            provider.name,
            len(nodes[position]),
            len(models[position]),
            sorted(all_nodes - nodes[position]),
            sorted(all_models - models[position]),
            sorted(name for name, positions in varied.items() if position in positions),
        )
        for position, provider in enumerate(providers)
    ]


def _models(provider: Provider) -> set[str]:
    return {f"{folder}/{spelled(name)}" for folder, names in provider.offer.models.items() for name in names}
