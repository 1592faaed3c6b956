"""`/templates/*` and `/docs/*`: the template dialog's index and files, and the nodes' help pages.

First the operator's `public/workflows/*.json`, then the official template packages where they are installed. Without
either our own starters, so that the dialog is never empty. Files are looked up by name, never by path.
"""

import asyncio
import contextlib
import html
import importlib
import importlib.resources
import os
import re
from pathlib import Path

from aiohttp import hdrs, web

from proxy.base.logs import events
from user_sessions.light.assets import CONTENT_TYPES
from user_sessions.light.catalog import read_json
from user_sessions.light.files import RangedFile

log = events(__name__)

INDEX = re.compile(r"index(\.[a-z]{2}(-[A-Z]{2})?)?\.json")
PICTURES = (".webp", ".png", ".jpg", ".gif", ".svg")
CARD = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 300 300"><rect width="300" height="300" fill="#26272b"/>'
    '<text x="150" y="155" fill="#c8c9cc" font-family="sans-serif" font-size="18" text-anchor="middle">{}</text></svg>'
)


STARTERS = Path(__file__).parents[2] / "templates" / "starters"
STARTER_CARDS = {
    "checkpoint": ("Text to image", "Paint from a prompt with a checkpoint; choose yours in the first node."),
    "model_free": ("A first picture", "A plain picture without any model: shows that the machines work."),
}


class Packages:
    """Files of the official packages, found once before the fork, and our starters, which a sandbox cannot reach."""

    def __init__(self) -> None:
        self.templates = _template_files()
        self.docs = _docs_files()
        self.starters = {path.stem: path.read_bytes() for path in sorted(STARTERS.glob("*.json"))}


class Templates:
    """The template and documentation routes."""

    def __init__(self, workflows: Path, packages: Packages) -> None:
        self._workflows = workflows
        self._packages = packages

    def routes(self) -> list[web.RouteDef]:
        """Complete paths, no twins."""
        return [web.get("/templates/{name:.*}", self._template), web.get("/docs/{name:.*}", self._doc)]

    async def _template(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["name"]
        if INDEX.fullmatch(name):
            return web.json_response(await asyncio.to_thread(self._index, name), headers={"Cache-Control": "no-cache"})
        own = await asyncio.to_thread(self._own)
        if name in own:
            return _file(own[name])
        if name in self._packages.templates:
            return _file(self._packages.templates[name])
        stem = name.removesuffix("-1.svg")
        if stem != name and (f"{stem}.json" in own or stem in self._packages.starters):
            card = CARD.format(html.escape(_title(stem)[:30]))
            return web.Response(text=card, content_type="image/svg+xml", headers={"Cache-Control": "no-cache"})
        starter = self._packages.starters.get(name.removesuffix(".json"))
        if starter is not None:
            return web.Response(body=starter, content_type="application/json", headers={"Cache-Control": "no-cache"})
        if name == "index_logo.json":
            return web.json_response({})
        raise web.HTTPNotFound

    async def _doc(self, request: web.Request) -> web.StreamResponse:
        found = self._packages.docs.get(request.match_info["name"])
        if found is None:
            raise web.HTTPNotFound
        return _file(found)

    def _index(self, name: str) -> list[object]:
        """The operator's workflows as a category before the official ones, in the wished language where it exists."""
        official = self._packages.templates.get(name) or self._packages.templates.get("index.json")
        rest = read_json(Path(official)) if official else None
        own = self._own()
        cards = [_card(Path(file), own) for file in sorted(own) if file.endswith(".json")]
        if not cards and not rest:
            cards = [_card(Path(f"{stem}.json"), {}) for stem in self._packages.starters]
        category: dict[str, object] = {
            "moduleName": "default",
            "title": "This server",
            "type": "image",
            "templates": cards,
        }
        index: list[object] = [category] if cards else []
        return index + (rest if isinstance(rest, list) else [])

    def _own(self) -> dict[str, str]:
        """The operator's files by the name the frontend asks for: `x.json` and its picture as `x-1.png`."""
        found: dict[str, str] = {}
        try:
            entries = sorted(self._workflows.iterdir())
        except OSError:
            return found
        for path in entries:
            if path.name.startswith((".", "index.")) or not path.is_file():
                continue
            if path.suffix == ".json":
                found[path.name] = str(path)
            elif path.suffix in PICTURES:
                found[f"{path.stem}-1{path.suffix}"] = str(path)
        return found


def _card(workflow: Path, own: dict[str, str]) -> dict[str, object]:
    """A template as `/templates/index.json` describes one."""
    picture = next((suffix for suffix in PICTURES if f"{workflow.stem}-1{suffix}" in own), ".svg")
    return {
        "name": workflow.stem,
        "title": _title(workflow.stem),
        "description": STARTER_CARDS.get(workflow.stem, ("", "A workflow of this server's operator."))[1],
        "mediaType": "image",
        "mediaSubtype": picture[1:],
    }


def _title(stem: str) -> str:
    return STARTER_CARDS.get(stem, (stem.replace("_", " ").replace("-", " "), ""))[0]


def _file(path: str) -> RangedFile:
    content_type = CONTENT_TYPES.get(os.path.splitext(path)[1].lower(), "application/octet-stream")  # noqa: PTH122
    headers = {hdrs.CONTENT_TYPE: content_type, hdrs.CACHE_CONTROL: "no-cache", "X-Content-Type-Options": "nosniff"}
    return RangedFile(path, headers)


def _template_files() -> dict[str, str]:
    """File name to path: the loader of `comfyui_workflow_templates` 0.3 and newer, or its older plain folder."""
    try:
        package = importlib.import_module("comfyui_workflow_templates")
    except ImportError:
        return {}
    if not hasattr(package, "iter_templates"):
        return _below(Path(str(importlib.resources.files(package))) / "templates")
    found: dict[str, str] = {}
    try:
        for template in package.iter_templates():
            for asset in template.assets:
                with contextlib.suppress(
                    Exception
                ):  # its media come in packages of their own, any of them may be absent
                    found[asset.filename] = str(package.get_asset_path(template.template_id, asset.filename))
    except Exception as error:  # a package of someone else's, in whatever state: the dialog does without it
        log.warning("the workflow templates package is not usable", reason=repr(error)[:300])
    return found


def _docs_files() -> dict[str, str]:
    try:
        package = importlib.import_module("comfyui_embedded_docs")
    except ImportError:
        return {}
    return _below(Path(str(importlib.resources.files(package))) / "docs")


def _below(folder: Path) -> dict[str, str]:
    return {
        (Path(parent) / name).relative_to(folder).as_posix(): str(Path(parent) / name)
        for parent, _, names in os.walk(folder)
        for name in names
    }
