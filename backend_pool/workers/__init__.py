"""Backends that register themselves: with the worker pack installed, they call in and prove who they are."""
