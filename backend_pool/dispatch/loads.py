"""Learned loading times of one kind of device, as placement asks for them."""

from collections.abc import Iterator, Mapping

from backend_pool.forecasts.timings import Timings


class Loads(Mapping[str, float]):
    """Seconds by model, looked up when somebody asks for one. Nobody lists them: as a list it is empty."""

    def __init__(self, timings: Timings, device: str) -> None:
        self._timings = timings
        self._device = device

    def __getitem__(self, model: str) -> float:
        seconds = self._timings.load_s(model, self._device)
        if seconds is None:
            raise KeyError(model)
        return seconds

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0
