"""What is looked for in an imported ComfyUI, and what its Python inherits from ours."""

import sys
from types import SimpleNamespace

import pytest

from user_sessions.comfyui import hooks
from user_sessions.warming import Unforkable
from user_sessions.zygote_process import session_environment


def with_cuda(*, initialized: bool) -> SimpleNamespace:
    return SimpleNamespace(cuda=SimpleNamespace(is_initialized=lambda: initialized))


def test_a_process_that_has_used_a_gpu_is_not_forked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", with_cuda(initialized=False))
    hooks.check_cuda()
    monkeypatch.setitem(sys.modules, "torch", with_cuda(initialized=True))
    with pytest.raises(Unforkable, match="CUDA"):
        hooks.check_cuda()


def fitting() -> hooks.Hooks:
    folder_paths = SimpleNamespace(folder_names_and_paths={}, **dict.fromkeys(hooks.SETTERS, print))
    main = SimpleNamespace(prompt_worker=lambda queue, server, assets: None)
    return hooks.Hooks(main, None, None, folder_paths, None, None)


@pytest.mark.parametrize("missing", [*hooks.SETTERS, "folder_names_and_paths"])
def test_what_a_fork_cannot_be_told_prevents_forking(missing: str) -> None:
    found = fitting()
    hooks.check_forkable(found)
    delattr(found.folder_paths, missing)
    with pytest.raises(Unforkable, match=missing):
        hooks.check_forkable(found)


def test_a_thread_that_cannot_be_held_back_prevents_forking() -> None:
    found = fitting()
    del found.main.prompt_worker
    with pytest.raises(Unforkable, match="prompt_worker"):
        hooks.check_forkable(found)


def test_put_aside_does_nothing_whatever_it_is_given() -> None:
    found = fitting()
    found.put_aside("prompt_worker", "no_such_function")
    assert found.main.prompt_worker(1, 2, asset_manager=3) is None
    assert not hasattr(found.main, "no_such_function")


def test_another_python_gets_nothing_that_leads_to_our_libraries() -> None:
    ours = {"PATH": "/bin", "PYTHONPATH": "/ours", "PYTHONHOME": "/ours", "VIRTUAL_ENV": "/ours", "PYTHONUTF8": "1"}
    assert session_environment(ours | {"AWS_KEY": "x"}) == ours
    assert session_environment(ours, foreign=True) == {"PATH": "/bin", "PYTHONUTF8": "1"}
