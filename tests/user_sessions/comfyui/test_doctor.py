"""What the doctor says of the ComfyUI that sessions run."""

import sys
from pathlib import Path

from proxy.base.settings import Settings
from proxy.doctor.host import SeenHost, look_at_host
from proxy.doctor.runtime import NEEDED, look_at_runtime
from tests.user_sessions.comfyui.double import make_double
from user_sessions.runtime_options import runtime_options


def settings_for(double: Path, python: Path) -> Settings:
    return Settings(comfyui=double, comfyui_python=python, data_dir=double.parent / "data")


def test_an_install_whose_python_lacks_something(tmp_path: Path) -> None:
    double = make_double(tmp_path / "ComfyUI")
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S "$@"\n')
    bare.chmod(0o755)
    (found,) = look_at_runtime(settings_for(double, bare))
    assert found.bad and "torch, aiohttp" in found.detail


def test_a_good_install(tmp_path: Path) -> None:
    double = make_double(tmp_path / "ComfyUI")
    for name in NEEDED:
        (double / f"{name}.py").touch()  # it is asked in the install's directory
    (found,) = look_at_runtime(settings_for(double, Path(sys.executable)))
    assert not found.bad and "0.8.0" in found.detail and str(double) in found.detail
    assert list(look_at_runtime(Settings(data_dir=tmp_path))) == []


def test_what_is_wrong_with_it(tmp_path: Path) -> None:
    double = make_double(tmp_path / "ComfyUI")
    broken, old = tmp_path / "broken", tmp_path / "old"
    broken.write_text("#!/bin/sh\nexit 1\n")
    old.write_text("#!/bin/sh\necho '[[3, 9, 1], []]'\n")
    for python in (broken, old):
        python.chmod(0o755)
    for python, words in ((broken, "cannot be asked"), (old, "3.11 or newer"), (tmp_path / "no", "--comfyui-python")):
        (found,) = look_at_runtime(settings_for(double, python))
        assert found.bad and words in found.detail
    (found,) = look_at_runtime(Settings(runtime="comfyui", data_dir=tmp_path))
    assert found.bad and "--comfyui" in found.detail


def test_what_a_host_says() -> None:
    nodes = [{"pack": f"pack-{number}", "error": "No module named 'x'"} for number in range(22)]
    health = {"zygote": {"warm": True, "error": "", "unforkable": "CUDA is in use"}, "failed_nodes": nodes}
    details = [finding.detail for finding in look_at_host(health)]
    assert "CUDA is in use" in details[0] and "pack-0 did not load: No module named 'x'" in details[1]
    assert details[-1].startswith("2 more") and not any(finding.bad for finding in look_at_host(health))
    (broken,) = look_at_host({"zygote": {"warm": False, "error": "ComfyUI cannot be started"}})
    assert broken.bad
    assert list(look_at_host({})) == []


def test_what_a_host_runs_is_judged_instead_of_the_settings(tmp_path: Path) -> None:
    double = make_double(tmp_path / "ComfyUI")
    for name in NEEDED:
        (double / f"{name}.py").touch()
    settings = settings_for(double, Path(sys.executable))
    host = SeenHost("comfyui", runtime_options(settings, "comfyui"), (), frozenset())
    (found,) = look_at_runtime(Settings(data_dir=tmp_path), host)
    assert found.what == "comfyui" and str(double) in found.detail
    light = SeenHost("light", {}, (), frozenset())
    assert list(look_at_runtime(settings, light)) == []
