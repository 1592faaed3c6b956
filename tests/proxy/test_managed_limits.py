"""Limits of managed ComfyUIs and of embedded engines, out of the settings."""

from backend_pool.managed.supervisor import Limits
from proxy.base.settings import Settings
from proxy.managed_backends import ENGINE_START_S, engine_limits, managed_limits

GIVEN = {"managed_min": 1, "managed_max": 3, "managed_idle_s": 60, "managed_cooldown_s": 5}


def test_engines_that_may_sleep_have_the_same_limits() -> None:
    settings = Settings.model_validate({**GIVEN, "engines_min": 2, "managed_start_timeout_s": 7})
    assert managed_limits(settings) == Limits(1, 3, 60, 5, 7)
    assert engine_limits(settings) == Limits(2, 3, 60, 5, 7)


def test_engines_are_all_awake_by_default() -> None:
    limits = engine_limits(Settings.model_validate(GIVEN))
    assert (limits.minimum, limits.maximum, limits.idle_s) == (0, None, 0.0)
    assert limits.start_timeout_s == ENGINE_START_S
