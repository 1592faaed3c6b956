"""From the queue to a backend: the front of the queue in memory, who may go where, who is next, who is carried."""
