"""`worker-pack install` and what it refuses, on a ComfyUI that is no more than the files it looks at."""

import ast
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from backend_pool import worker_pack
from backend_pool.worker_pack.comfy_cache import is_shared
from backend_pool.worker_pack.comfy_hooks import version_problem
from backend_pool.worker_pack.config import load
from backend_pool.worker_pack.store import Store
from backend_pool.workers.install import FOLDER, Wishes, comfyui_version, install, installed, is_current, uninstall
from proxy.base.errors import BadInput, ConfigError
from tests.cluster import STOP_TIMEOUT_S, environment

GIVEN = Wishes(server="cluster:8188/", token="cwt_x", name="gpu")


def checkout(root: Path, version: str = "0.8.0") -> Path:
    """What the installer looks at."""
    for name in ("main.py", "nodes.py"):
        (root / name).touch()
    (root / "comfyui_version.py").write_text(f'__version__ = "{version}"\n')
    (root / "custom_nodes").mkdir(exist_ok=True)
    return root


def test_install_update_uninstall(tmp_path: Path) -> None:
    folder = checkout(tmp_path) / "custom_nodes"
    with pytest.raises(ConfigError, match="--server and --token"):
        install(folder, Wishes())
    first = install(folder, GIVEN)
    assert first.server == "http://cluster:8188" and not first.open
    assert stat.S_IMODE((folder / FOLDER / "config.json").stat().st_mode) == 0o600
    (folder / FOLDER / "wire.py").write_text('PACK_VERSION = "0.1"\n')
    found = installed(folder)
    assert found is not None and not is_current(found) and found.config == first
    again = install(folder, Wishes(open=True, advertise="http://10.0.0.5:8188"))
    assert (again.worker_id, again.token, again.name) == (first.worker_id, "cwt_x", "gpu"), "what was not given stays"
    assert again.open and again.advertise == "http://10.0.0.5:8188"
    found = installed(folder)
    assert found is not None and is_current(found)
    assert sorted(path.name for path in folder.iterdir()) == [FOLDER]
    with pytest.raises(ConfigError, match="no directory"):
        install(folder, Wishes(shared_data=tmp_path / "nowhere"))
    assert uninstall(folder) and not uninstall(folder) and installed(folder) is None


@pytest.mark.parametrize("version", ["0.3.63", "0.2.0", "0.9.0", "1.0.0", "nonsense"])
def test_versions_that_are_refused(tmp_path: Path, version: str) -> None:
    with pytest.raises(ConfigError, match=version):
        comfyui_version(checkout(tmp_path, version))


def test_versions_and_directories(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no ComfyUI"):
        comfyui_version(tmp_path)
    assert comfyui_version(checkout(tmp_path)) == "0.8.0"
    assert [version for version in ("0.3.64", "0.4.0", "0.8.9") if version_problem(version)] == []


def test_the_pack_stands_alone() -> None:
    """It runs under ComfyUI's Python, 3.10 or newer, without this project and what it depends on."""
    ours = ("proxy", "backend_pool", "user_sessions", "pydantic", "sqlmodel", "starlette")
    for path in Path(worker_pack.__file__).parent.glob("*.py"):
        tree = ast.parse(path.read_text(), feature_version=(3, 10))
        for node in ast.walk(tree):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and node.level == 0 else []
            assert [name for name in names if name.split(".")[0] in ours] == [], path.name


def test_what_loaders_share(tmp_path: Path) -> None:
    """A loader's result is everybody's, unless it names a model of the user's own."""
    (tmp_path / "mine.safetensors").touch()
    lora = {"class_type": "LoraLoader", "inputs": {"lora_name": "theirs.safetensors", "model": ["1", 0]}}
    assert is_shared(lora, [str(tmp_path)])
    assert not is_shared({**lora, "inputs": {"lora_name": "mine.safetensors"}}, [str(tmp_path)])
    assert not is_shared({"class_type": "LoadImage", "inputs": {}}, [])


def test_the_store_takes_what_its_name_says(tmp_path: Path) -> None:
    """And nothing else; names are hashes; what a job gets is a copy."""
    store = Store(tmp_path / "store", 1024)
    name = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
    for content in (b"other", b"hello"):
        incoming = store.begin(name)
        incoming.write(content)
        assert incoming.finish() == (content == b"hello")
        incoming.close()
    with pytest.raises(ValueError):
        store.begin("../escape")
    assert store.missing([name, "0" * 64]) == ["0" * 64]
    target = tmp_path / "job" / "hello.txt"
    store.place(name, target, 1_700_000_000_000_000_000)
    target.write_text("changed by a node")
    assert (tmp_path / "store" / name).read_text() == "hello"


def test_what_is_no_token_or_no_address_is_said(tmp_path: Path) -> None:
    folder = checkout(tmp_path) / "custom_nodes"
    with pytest.raises(ConfigError, match="begin with cwt_"):
        install(folder, Wishes(server="cluster:8188", token="ccp_personal"))
    assert list(folder.iterdir()) == []
    with pytest.raises(ConfigError, match="/proc: "):
        install(Path("/proc"), GIVEN)
    assert install(folder, Wishes("c:1", "cwt_x", advertise="gpu:{port}/")).advertise == "http://gpu:{port}"
    with pytest.raises(BadInput):
        install(folder, Wishes(advertise="gpu:{port}1234567"))


def cli(*arguments: str, token: str = "") -> subprocess.CompletedProcess[str]:
    """`comfy-cluster` to its end."""
    command = [sys.executable, "-m", "proxy", *arguments]
    env = environment({"COMFY_CLUSTER_TOKEN": token} if token else None)
    return subprocess.run(command, capture_output=True, text=True, timeout=STOP_TIMEOUT_S, check=False, env=env)


def test_the_command_line(tmp_path: Path) -> None:
    """A token, an installation with it, and what `status` says when ComfyUI has gone past the pack meanwhile."""
    comfyui = tmp_path / "comfyui"
    comfyui.mkdir()
    checkout(comfyui)
    made = cli("--data-dir", str(tmp_path / "data"), "worker-pack", "token", "--name", "gpu")
    token = made.stdout.strip()
    assert made.returncode == 0 and token.startswith("cwt_") and made.stderr == ""
    done = cli("worker-pack", "install", "--comfyui", str(comfyui), "--server", "http://127.0.0.1:9", token=token)
    assert done.returncode == 0, done.stderr
    assert load(comfyui / "custom_nodes" / FOLDER / "config.json").token == token and token not in done.stdout
    checkout(comfyui, "0.9.1")
    status = cli("worker-pack", "status", "--comfyui", str(comfyui))
    assert status.returncode == 1 and status.stderr == ""
    lines = dict(line.split("\t", 1) for line in status.stdout.splitlines())
    assert "0.9.1" in lines["comfyui"] and lines["server"] == "http://127.0.0.1:9" and lines["state"].startswith("off")
