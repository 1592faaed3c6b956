"""`python -m proxy` is `comfy-cluster`."""

from proxy.cli import main

main()
