"""Rules of the house that a reader relies on: who imports whom, where tasks begin, how long a file gets."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGES = ("proxy", "backend_pool", "user_sessions")
BASE = "proxy.base"
ORDER = {
    "backend_pool": (
        "prompts", "comfy", "worker_pack", "engine", "files", "workers", "offers", "backends", "managed", "books",
        "jobs", "placement", "forecasts", "runs", "dispatch",
    ),
    "proxy": (
        "base", "access", "tabs", "health", "forward", "bodies", "views", "api", "pages", "comfy", "bench", "doctor",
        "verbs",
    ),
}  # fmt: skip
"""Who may import whom: each package those before it. Modules beside packages are not in the order."""
LONGEST = 300
LONGER_WITH_A_REASON: dict[str, str] = {}
"""File and reason. Empty is how it should be."""
TASKS = "proxy/base/tasks.py"
OPENING = {
    "open", "fdopen", "open_code", "read_text", "read_bytes", "write_text", "write_bytes", "mkfifo", "mknod",
    "copyfile", "copy2", "copytree", "shutil.copy", "shutil.move", "os.truncate",
}  # fmt: skip
"""Calls that open a file by its name, of modules and paths."""
OPENS_USERS_FILES = "proxy/base/user_file_open.py"
OPENS_OTHER_FILES = {
    "proxy/agent_process.py": "the agent's own id",
    "proxy/base/database.py": "the database",
    "proxy/base/log_file.py": "logs",
    "proxy/base/pictures.py": "reads pictures that are open, in sessions and engines",
    "proxy/base/listening.py": "/proc",
    "proxy/base/processes.py": "records of processes, /proc",
    "proxy/bench/forward.py": "/proc",
    "proxy/bench/jobs.py": "its own engine",
    "proxy/bench/server.py": "its own log and engines",
    "proxy/data_dir.py": "the data directory itself",
    "proxy/demo.py": "the demonstration's passwords",
    "proxy/doctor/checks.py": "/proc",
    "proxy/pages/static_files.py": "files of the pages",
    "proxy/access/secret_key.py": "the key",
    "proxy/starter.py": "the operator's workflow and ours",
    "backend_pool/managed/comfy_recipe.py": "directories of managed ComfyUIs",
    "backend_pool/managed/engine_recipe.py": "addresses and secrets of engines",
    "backend_pool/managed/own_token.py": "the server's own worker token",
    "backend_pool/offers/store.py": "what backends offer",
    "backend_pool/workers/install.py": "an operator's ComfyUI",
    "backend_pool/workers/registrations.py": "the proof of shared storage, in our own directory",
}
"""Modules of the proxy that open files by name, none of them in a user's directories."""
OTHER_PROCESSES = ("backend_pool/engine/", "backend_pool/worker_pack/")
NAMES_PACKAGES = {"user_sessions/sandbox.py": "asks where the packages lie, to let sessions read them"}


def sources(*packages: str) -> Iterator[tuple[str, ast.Module]]:
    """Every file of ours, by its name and syntax tree."""
    for package in packages:
        for path in sorted((ROOT / package).rglob("*.py")):
            yield path.relative_to(ROOT).as_posix(), ast.parse(path.read_text(), filename=str(path))


def imported(tree: ast.Module) -> set[str]:
    """Every module that a file imports, inside functions too."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module == "proxy":
            found |= {f"proxy.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def below(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def strangers(tree: ast.Module, own: str) -> list[str]:
    """Modules of this project that a file below `own` may not import."""
    ours = [module for module in imported(tree) if any(below(module, package) for package in PACKAGES)]
    return [module for module in ours if not below(module, own) and not below(module, BASE)]


def test_the_base_knows_nobody() -> None:
    assert [(name, found) for name, tree in sources("proxy/base") if (found := strangers(tree, BASE))] == []


def test_the_domain_packages_know_the_base_only() -> None:
    wrong = [
        (name, found)
        for package in ("backend_pool", "user_sessions")
        for name, tree in sources(package)
        if (found := strangers(tree, package)) and name not in NAMES_PACKAGES
    ]
    assert wrong == []


def test_packages_depend_on_each_other_one_way() -> None:
    """Each package of a folder imports those before it alone; docs/design.md says the same to people."""
    for folder, order in ORDER.items():
        assert sorted(path.parent.name for path in (ROOT / folder).glob("*/__init__.py")) == sorted(order)
        place = {name: number for number, name in enumerate(order)}
        wrong = [
            (name, module)
            for name, tree in sources(folder)
            for module in imported(tree)
            if package_of(module, folder) in place
            and place.get(name.split("/")[1], len(order)) < place[package_of(module, folder)]
        ]
        assert wrong == []
        told = (ROOT / "docs" / "design.md").read_text()
        assert " < ".join(f"`{name}`" for name in order) in " ".join(told.split())


def package_of(module: str, folder: str) -> str:
    """The package of a folder that a module is in, or the module itself beside packages; empty for others."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[0] == folder else ""


def test_tasks_are_held_by_somebody() -> None:
    """`create_task` is a TaskGroup's, or the one in tasks.py: the loop itself keeps weak references only."""
    wrong = []
    for name, tree in sources(*PACKAGES):
        groups = set(task_groups(tree))
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and node.attr in ("create_task", "ensure_future"):
                if not (isinstance(node.value, ast.Name) and node.value.id in groups) and name != TASKS:
                    wrong.append((name, node.lineno))
            elif isinstance(node, ast.ImportFrom) and node.module == "asyncio":
                wrong += [(name, node.lineno) for alias in node.names if alias.name in ("create_task", "ensure_future")]
    assert wrong == []


def task_groups(tree: ast.Module) -> Iterator[str]:
    """Names bound to a TaskGroup, by `async with ... as` or by assignment."""
    for node in ast.walk(tree):
        if isinstance(node, ast.AsyncWith):
            bound = [(item.context_expr, item.optional_vars) for item in node.items]
        elif isinstance(node, ast.Assign):
            bound = [(node.value, target) for target in node.targets]
        else:
            continue
        for value, target in bound:
            if ast.unparse(value) == "asyncio.TaskGroup()" and isinstance(target, ast.Name):
                yield target.id


def test_files_stay_readable() -> None:
    lengths = {name: len((ROOT / name).read_text().splitlines()) for name, _ in sources(*PACKAGES)}
    long = {name for name, lines in lengths.items() if lines > LONGEST}
    assert long <= LONGER_WITH_A_REASON.keys(), "split them, or give a reason here"
    assert LONGER_WITH_A_REASON.keys() <= long, "short by now: remove the exception"


def test_a_file_says_what_it_owns() -> None:
    assert [name for name, tree in sources(*PACKAGES) if tree.body and not ast.get_docstring(tree)] == []


def test_the_environment_is_read_in_the_settings_only() -> None:
    """Passing it on to a child is no reading, and neither is a child's setting of its own."""
    wrong = []
    for name, tree in sources(*PACKAGES):
        for node in ast.walk(tree):
            read = isinstance(node, ast.Call) or (isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Load))
            if read and ast.unparse(node).startswith(("os.environ[", "os.environ.get(", "os.getenv(")):
                wrong.append((name, ast.unparse(node)))
    assert wrong == []


def test_files_of_users_are_opened_in_one_place() -> None:
    """A session may put a FIFO or a link anywhere in them: whoever opens by name waits there, or is led away."""
    opens = {
        name
        for name, tree in sources("proxy", "backend_pool")
        if openings(tree) and not name.startswith(OTHER_PROCESSES) and name != OPENS_USERS_FILES
    }
    assert opens - OPENS_OTHER_FILES.keys() == set(), f"use {OPENS_USERS_FILES}, or say here whose files these are"
    assert OPENS_OTHER_FILES.keys() - opens == set(), "opens nothing by now: remove the exception"


def openings(tree: ast.Module) -> list[str]:
    """Calls that open a file by its name."""
    calls = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
    names = [call.attr if isinstance(call, ast.Attribute) else getattr(call, "id", "") for call in calls]
    dotted = [ast.unparse(call) for call in calls]
    return [text for name, text in zip(names, dotted, strict=True) if {name, text} & OPENING]


def test_the_rules_see_what_they_forbid() -> None:
    """Each finder finds a planted offence: a rule that cannot fail protects nothing."""
    planted = ast.parse("from proxy import app\nimport user_sessions.host\nfrom proxy.base import logs\n")
    assert set(strangers(planted, "backend_pool")) == {"proxy.app", "user_sessions.host"}
    assert package_of("backend_pool.jobs.store", "backend_pool") == "jobs"
    assert package_of("backend_pool.model", "backend_pool") == "model"
    group = ast.parse("async def f():\n  async with asyncio.TaskGroup() as g, other() as h:\n    pass")
    assert list(task_groups(group)) == ["g"]
    reads = ast.parse("a = path.open('rb')\nb = open(x)\nos.open(x, 0)\n(p / 'x').read_bytes()\nfile.close()")
    assert openings(reads) == ["path.open", "open", "os.open", "(p / 'x').read_bytes"]
