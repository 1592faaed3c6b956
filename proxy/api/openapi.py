"""The OpenAPI 3.1 document, built from the same table as the routes. For whoever is signed in or has a token."""

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from proxy.access.auth import identity
from proxy.api.errors import MethodNotAllowed, error_response
from proxy.api.operations import Operation
from proxy.base.errors import ClusterError, NotAuthenticated
from proxy.views.deps import Deps

REF = "#/components/schemas/{model}"
DESCRIPTION = (
    "Accounts, sessions, jobs and the pool of a ComfyUI cluster. ComfyUI's own API is beside it, at its own paths, "
    "for the same credentials. Unsafe requests from other sites' pages are refused."
)
ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["type", "message", "details", "extra_info"],
            "properties": {
                "type": {"type": "string"},
                "message": {"type": "string"},
                "details": {"type": "string"},
                "extra_info": {"type": "object", "properties": {"request_id": {"type": "string"}}},
            },
        }
    },
}
SECURITY = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "basic": {"type": "http", "scheme": "basic", "description": "The token as password or as user name."},
    "api_key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    "login": {"type": "apiKey", "in": "cookie", "name": "comfy_cluster_login"},
}


class Document:
    """Serves the document."""

    def __init__(self, deps: Deps, operations: Sequence[Operation], base: str) -> None:
        self._deps = deps
        self._operations = operations
        self._base = base

    @cached_property
    def _bytes(self) -> bytes:
        return json.dumps(document(self._operations, self._base)).encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            response = await self._answer(scope)
        except ClusterError as error:
            response = error_response(scope, error)
        await response(scope, receive, send)

    async def _answer(self, scope: Scope) -> Response:
        if scope["method"] not in {"GET", "HEAD"}:
            raise MethodNotAllowed("This address knows GET only.")
        if identity(await self._deps.access.authenticator.authenticate(scope)) is None:
            raise NotAuthenticated("Sign in, or send an API token (Authorization: Bearer ...).")
        return Response(self._bytes, headers={"Cache-Control": "private, no-cache"}, media_type="application/json")


def document(operations: Sequence[Operation], base: str) -> dict[str, Any]:
    """OpenAPI 3.1 as plain values."""
    modes: list[tuple[type[BaseModel], JsonSchemaMode]] = []
    for operation in operations:
        if operation.answer is not None:
            modes.append((operation.answer, "serialization"))
        if operation.body is not None:
            modes.append((operation.body, "validation"))
    names, definitions = models_json_schema(list(dict.fromkeys(modes)), ref_template=REF)
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        paths.setdefault(base + operation.path, {})[operation.method.lower()] = _described(operation, names)
    return {
        "openapi": "3.1.0",
        "info": {"title": "ComfyUI Cluster Proxy", "version": _version(), "description": DESCRIPTION},
        "paths": paths,
        "components": {"schemas": definitions.get("$defs", {}) | {"Error": ERROR}, "securitySchemes": SECURITY},
        "security": [{name: []} for name in SECURITY],
    }


def _described(operation: Operation, names: Mapping[Any, Any]) -> dict[str, Any]:
    words = [part for part in operation.path.split("/") if part]
    result: dict[str, Any] = {
        "operationId": operation.run.__module__.rpartition("_")[2] + "_" + operation.run.__name__,
        "summary": operation.summary,
        "description": (operation.run.__doc__ or "") + (" For administrators." if operation.admin else ""),
        "tags": ["admin" if operation.admin else "me"],
        "responses": {
            str(operation.status): _answer(operation, names),
            "default": {"description": "What went wrong.", "content": _json({"$ref": REF.format(model="Error")})},
        },
    }
    parameters = [_parameter(word[1:-1], "path") for word in words if word.startswith("{")]
    parameters += [_parameter(name, "query") for name in operation.query]
    parameters += [{"name": name, "in": "query", "schema": {"type": "string"}} for name in operation.words]
    if parameters:
        result["parameters"] = parameters
    if operation.body is not None:
        result["requestBody"] = {"required": True, "content": _json(names[operation.body, "validation"])}
    return result


def _answer(operation: Operation, names: Mapping[Any, Any]) -> dict[str, Any]:
    if operation.answer is None:
        return {"description": "CSV, a line of names first.", "content": {"text/csv": {"schema": {"type": "string"}}}}
    description = (operation.answer.__doc__ or "").strip()
    return {"description": description, "content": _json(names[operation.answer, "serialization"])}


def _parameter(name: str, where: str) -> dict[str, Any]:
    # Ids of logins are words, all others numbers; a string describes both.
    schema = {"type": "string"} if where == "path" else {"type": "integer", "minimum": 1}
    return {"name": name, "in": where, "required": where == "path", "schema": schema}


def _json(schema: Any) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


def _version() -> str:
    try:
        return version("comfyui-cluster-proxy")
    except PackageNotFoundError:
        return "0"
