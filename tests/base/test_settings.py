"""Settings: flags over variables over the file; every mistake is named and none is passed over."""

from pathlib import Path

import pytest
import typer.main
from pydantic import ValidationError
from typer.core import TyperGroup

from proxy import cli
from proxy.base.errors import ConfigError
from proxy.base.settings import Settings
from proxy.base.settings_file import load


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "cluster.toml"
    path.write_text('port = 1\nhost = "file"\nadmin_name = "file"\nbackends = ["http://a:1"]\n')
    return path


def test_flags_win_over_variables_over_the_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMFY_CLUSTER_PORT", "2")
    monkeypatch.setenv("COMFY_CLUSTER_HOST", "variable")
    settings = load(file, port=3, log_level=None)
    assert (settings.port, settings.host, settings.admin_name) == (3, "variable", "file")
    assert settings.backends == ["http://a:1"]
    assert settings.log_level == "info"


def test_lists_in_variables_are_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMFY_CLUSTER_BACKENDS", '["http://a:1", "http://b:2"]')
    assert load().backends == ["http://a:1", "http://b:2"]
    monkeypatch.setenv("COMFY_CLUSTER_BACKENDS", "http://a:1")
    with pytest.raises(ConfigError, match="backends"):
        load()


@pytest.mark.parametrize(
    ("text", "word"),
    [("port = 70000", "port"), ("prot = 1", "prot"), ("port = ", "readable"), ("[port]\na = 1", "port")],
)
def test_mistakes_in_the_file_are_named(tmp_path: Path, text: str, word: str) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=word):
        load(path)


@pytest.mark.parametrize("url", ["ftp://gpu", "not a url", "http://", "", "foo", "foo/base"])
def test_backends_are_addresses(url: str) -> None:
    with pytest.raises(ConfigError, match=r"backends: .* is not the URL of a ComfyUI"):
        load(backends=["http://fine:1", url])
    assert load(backends=["gpu:1/"]).backends == ["http://gpu:1"]
    assert load(backends=["http://gpu", "gpu.lan", "localhost", "[::1]:8"]).backends == [
        *("http://gpu", "http://gpu.lan", "http://localhost", "http://[::1]:8")
    ]


@pytest.mark.parametrize("value", ["inf", "nan"])
def test_numbers_are_finite(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    names = [name for name, field in Settings.model_fields.items() if field.annotation in (float, float | None)]
    assert "managed_idle_s" in names and "run_limit_s" in names
    for name in names:
        monkeypatch.setenv(f"COMFY_CLUSTER_{name.upper()}", value)
    with pytest.raises(ConfigError) as refused:
        load()
    assert [name for name in names if name not in refused.value.message] == []


@pytest.mark.parametrize("least", ["managed_min", "engines_min"])
def test_limits_that_contradict_each_other(least: str) -> None:
    with pytest.raises(ConfigError, match=f"not usable: `{least}` is more than `managed_max`"):
        load(None, managed_max=2, **{least: 3})
    assert load(None, managed_max=2, **{least: 2}).managed_max == 2


def test_no_file() -> None:
    with pytest.raises(ConfigError, match=r"none\.toml"):
        load(Path("none.toml"))


def test_they_do_not_change() -> None:
    with pytest.raises(ValidationError):
        Settings().port = 1  # type: ignore[misc]


def test_the_password_is_not_shown() -> None:
    assert "s3cr3t" not in repr(load(admin_password="s3cr3t"))


def test_two_files_do_not_mix(tmp_path: Path) -> None:
    for name, port in (("a", 1), ("b", 2)):
        (tmp_path / name).write_text(f"port = {port}")
    first, second = load(tmp_path / "a"), load(tmp_path / "b")
    assert (first.port, second.port) == (1, 2)


def test_every_flag_of_up_is_a_setting() -> None:
    command = typer.main.get_command(cli.app)
    assert isinstance(command, TyperGroup)
    up = command.commands["up"]
    settings = {name.rstrip("s") for name in Settings.model_fields}
    assert {str(p.name).rstrip("s") for p in up.params if p.name not in ("config", "help")} <= settings


@pytest.mark.parametrize("name", sorted(Settings.model_fields))
def test_every_setting_says_what_it_is(name: str) -> None:
    field = Settings.model_fields[name]
    assert field.description
    assert field.description.endswith(".")
