"""Backends whose processes are ours, or an agent's on a GPU machine: started, restarted, put to sleep, woken on demand.

`supervisor.py` decides and touches nothing; `instances.py` has the processes; `keeper.py` (one server's own) and
`agent.py` (another machine's) are the shells around the two.
"""
