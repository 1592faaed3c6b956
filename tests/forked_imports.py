"""What the process that others are forked from has imported; frozen, so that they share its memory.

pytest too: each of them looks at the script that the tests were started with.
"""

import gc

import pytest

import backend_pool.engine.__main__
import proxy.cli
import proxy.up
import tests.backend_pool.pool_process

__all__ = ["backend_pool", "proxy", "pytest", "tests"]

gc.collect()
gc.freeze()
