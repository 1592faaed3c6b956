"""A trial: many users queue jobs while engines and the proxy are killed, hung and restarted; then all is counted.

`python -m tests.system.chaos --help`, or `make chaos`; a short one runs with the tests.
"""
