"""Finding a ComfyUI and its Python, and running our modules under another Python."""

import subprocess
import sys
from pathlib import Path

import pytest

from proxy.base.errors import ConfigError
from proxy.base.settings import Settings
from tests.user_sessions.comfyui.double import make_double
from user_sessions.comfyui.install import find_install, find_python
from user_sessions.comfyui.options import Options
from user_sessions.runtime_options import runtime_options
from user_sessions.runtimes import BOOTSTRAP, program

CHECK = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("bootstrap", sys.argv[1])
bootstrap = importlib.util.module_from_spec(spec)
spec.loader.exec_module(bootstrap)
sys.meta_path.insert(0, bootstrap.OurPackages())
import user_sessions.zygote, user_sessions.child, user_sessions.cold, user_sessions.comfyui.options
foreign = {name.partition(".")[0] for name in sys.modules} - set(sys.stdlib_module_names)
print(sorted(name for name in foreign if not name.startswith("__") and name != "bootstrap"))
"""


def test_a_zygote_needs_the_standard_library_alone() -> None:
    """It runs under ComfyUI's Python, which has none of our libraries; what it finds of ours is two packages."""
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", CHECK, str(BOOTSTRAP)],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.strip() == "['proxy', 'user_sessions']", done.stderr


def test_a_session_program_starts_under_another_python() -> None:
    command = [sys.executable, "-I", "-S", str(BOOTSTRAP), "user_sessions.child"]
    done = subprocess.run(command, check=False, input="no orders", capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and "needs its orders" in done.stderr


def test_an_install_is_found_with_its_python(tmp_path: Path) -> None:
    double = make_double(tmp_path / "ComfyUI", version="0.9.1")
    python = double / "venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    found = find_install(double, None)
    assert (found.directory, found.python, found.version) == (double, python, "0.9.1")
    readable = {path.name for path in found.readable()}
    assert {"main.py", "models", "custom_nodes"} <= readable and not {"input", "user"} & readable


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--comfyui"):
        find_install(None, None)
    with pytest.raises(ConfigError, match=r"no ComfyUI: main.py"):
        find_install(tmp_path, None)
    double = make_double(tmp_path / "ComfyUI")
    with pytest.raises(ConfigError, match="--comfyui-python"):
        find_python(double, tmp_path / "nothing")
    (double / "comfyui_version.py").write_text("")
    with pytest.raises(ConfigError, match="names no version"):
        find_install(double, Path(sys.executable))


def test_no_python_without_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("user_sessions.comfyui.install.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="--comfyui-python"):
        find_python(make_double(tmp_path / "ComfyUI"), None)


def test_naming_a_comfyui_chooses_it(tmp_path: Path) -> None:
    double = make_double(tmp_path / "ComfyUI")
    chosen = Settings(comfyui=double, comfyui_python=Path(sys.executable), data_dir=tmp_path / "data")
    assert chosen.runtime == "comfyui"
    assert Settings(comfyui=double, runtime="light").runtime == "light"
    options = runtime_options(chosen, chosen.runtime)
    assert Options.from_text(options).to_text() == options
    assert program("comfyui", options) == (sys.executable, str(BOOTSTRAP))
    assert program("light", {}) == ()
    for argument in ("--port=1", "--user-directory", "--listen"):
        with pytest.raises(ConfigError, match="comfyui_args"):
            runtime_options(chosen.model_copy(update={"comfyui_args": [argument]}), "comfyui")
