"""Nothing merges undocumented: settings, command line, metrics, API, and links between the pages."""

import re
from pathlib import Path

import pytest
import typer.main
from typer.core import TyperCommand, TyperGroup

from proxy import cli
from proxy.api.table import OPERATIONS
from proxy.base.settings import Settings
from proxy.base.settings_doc import page
from proxy.health.routes import METRICS

ROOT = Path(__file__).parent.parent.parent
DOCS = ROOT / "docs"
CODE = ("proxy", "backend_pool", "user_sessions", "tests")
PAGES = sorted([*DOCS.glob("*.md"), ROOT / "README.md", ROOT / "CHANGELOG.md"])


def verbs() -> dict[str, TyperCommand]:
    """Every verb in full, such as `user add`."""
    found: dict[str, TyperCommand] = {}
    top = typer.main.get_command(cli.app)
    assert isinstance(top, TyperGroup)
    for name, command in top.commands.items():
        if isinstance(command, TyperGroup):
            found |= {f"{name} {verb}": sub for verb, sub in command.commands.items() if isinstance(sub, TyperCommand)}
        elif isinstance(command, TyperCommand):
            found[name] = command
    return found


def test_the_page_of_settings_is_the_settings() -> None:
    """When this fails: python -m proxy.base.settings_doc > docs/settings.md"""
    assert (DOCS / "settings.md").read_text() == page()
    for name in Settings.model_fields:
        assert f"| `{name}` |" in page()


def test_every_verb_and_flag_is_documented() -> None:
    text = (DOCS / "operations.md").read_text()
    known = verbs()
    assert {"up", "demo", "user add", "doctor"} <= known.keys()
    for verb, command in known.items():
        assert re.search(rf"^\| `{verb}[` ]", text, re.MULTILINE), verb
        for parameter in command.params:
            for flag in (name for name in parameter.opts if name.startswith("--") and name != "--help"):
                assert f"`{flag}" in text or f" {flag} " in text, f"{verb} {flag}"


def test_every_documented_flag_exists() -> None:
    flags = {name for command in verbs().values() for p in command.params for name in (*p.opts, *p.secondary_opts)}
    text = (DOCS / "operations.md").read_text()
    assert set(re.findall(r"`(--[a-z-]+)`", text)) <= flags | {"--help"}


def test_the_metrics_are_the_documented_ones() -> None:
    text = (DOCS / "metrics.md").read_text()
    assert set(re.findall(r"^\| `(comfy_cluster_\w+)` \|", text, re.MULTILINE)) == set(METRICS)


def test_the_operations_of_the_api_are_the_documented_ones() -> None:
    text = (DOCS / "api.md").read_text()
    documented = set(re.findall(r"^\| `((?:GET|POST|PATCH|PUT|DELETE) /[^`]*)` \|", text, re.MULTILINE))
    assert documented == {f"{operation.method} {operation.path}" for operation in OPERATIONS}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)", path.read_text()):
        if "://" not in target:
            assert (path.parent / target).exists(), target


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_settings_named_in_the_docs_exist(path: Path) -> None:
    for name in re.findall(r"COMFY_CLUSTER_([A-Z_]+)", path.read_text()):
        assert name.lower() in Settings.model_fields or name == "TOKEN", name


def cited(pattern: str) -> dict[str, str]:
    """What comments and docstrings cite, and one file that does."""
    files = [path for folder in CODE for path in sorted((ROOT / folder).rglob("*.py"))]
    return {found: path.name for path in files for found in re.findall(pattern, path.read_text())}


def test_what_comments_cite_is_there() -> None:
    """Sections of the protocol, labels of the clients' demands, headings of pages."""
    protocol = (DOCS / "protocol.md").read_text()
    sections = set(re.findall(r"^#* *(\d+(?:\.\d+)?)\.? ", protocol, re.MULTILINE))
    sections |= {f"8.{trap}" for trap in re.findall(r"^(\d+)\. ", protocol.partition("\n## 8. ")[2], re.MULTILINE)}
    labels = set(re.findall(r"^\* \*\*([BE]\d+)", (DOCS / "client-demands.md").read_text(), re.MULTILINE))
    headings = {
        f'docs/{path.name}, "{heading}"'
        for path in DOCS.glob("*.md")
        for heading in re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE)
    }
    for pattern, there in (
        (r"§(\d+(?:\.\d+)?)", sections),
        (r"client demands ([BE]\d+)", labels),
        (r'docs/[\w-]+\.md, "[^"]+"', headings),
    ):
        found = cited(pattern)
        assert found and not found.keys() - there, {name: found[name] for name in found.keys() - there}
