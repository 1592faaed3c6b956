"""What the pool offers, over the JSON API: models with the backends that have them, and how backends have drifted."""

import asyncio

from pydantic import BaseModel, Field

from backend_pool.offers.drift import compare
from proxy.api.operations import Call
from proxy.base.errors import NotFound
from proxy.base.logs import events
from proxy.bodies.models import Answer
from proxy.views.backends import backend_info

log = events(__name__)


class ModelInfo(Answer):
    """One model file."""

    folder: str
    name: str
    backends: list[str] = Field(description="Names of the backends that have it.")


class ModelFiles(Answer):
    """Model files by folder and name."""

    models: list[ModelInfo]
    backends: int = Field(description="Backends that have told what they offer.")


class BackendDrift(Answer):
    """One backend beside the others. Models are written `folder/name`."""

    id: int
    name: str
    nodes: int
    models: int
    lacks_nodes: list[str] = Field(description="Nodes that another backend has.")
    lacks_models: list[str] = Field(description="Models that another backend has.")
    differs: list[str] = Field(description="Nodes that it defines otherwise than what users see.")


class Comparison(Answer):
    """All backends that have told what they offer, oldest first."""

    backends: list[BackendDrift]


async def models(call: Call) -> BaseModel:
    """Every model file that users may choose; `?folder=` for one folder. 404 for a folder that no backend has."""
    folder = call.request.query_params.get("folder")
    return await asyncio.to_thread(_models, call, folder)


async def drift(call: Call) -> BaseModel:
    """What each backend lacks that others have."""
    found = await asyncio.to_thread(compare, call.deps.pool.info.providers)
    return Comparison(
        backends=[
            BackendDrift(
                id=one.key,
                name=one.name,
                nodes=one.nodes,
                models=one.models,
                lacks_nodes=one.lacks_nodes,
                lacks_models=one.lacks_models,
                differs=one.differs,
            )
            for one in found
        ]
    )


async def refresh(call: Call) -> BaseModel:
    """Have a backend's nodes and models read again at once."""
    row = await call.deps.registry.ask_refresh(call.id("id"))
    call.deps.pool.wake()
    log.info("backend is read again", backend=row.name, by=call.who.name)
    return await backend_info(call.deps, row)


def _models(call: Call, folder: str | None) -> ModelFiles:
    info = call.deps.pool.info
    if folder is not None and info.models.names(folder) is None:
        raise NotFound("No backend has a model folder of that name.")
    names = {provider.key: provider.name for provider in info.providers}
    found = [
        ModelInfo(folder=kind, name=file, backends=[names[key] for key in info.models.having(kind, file)])
        for kind in ([folder] if folder is not None else info.models.folders())
        for file in info.models.names(kind) or ()
    ]
    return ModelFiles(models=found, backends=len(names))
