"""Engines with the worker pack, for every test here."""

from tests.worker_pack.cluster import begin

__all__ = ["begin"]
