"""The control pages under /cluster/."""
