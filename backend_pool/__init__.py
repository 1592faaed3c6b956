"""The pool of backends and the durable jobs it runs. Imports `proxy.base` alone; knows users by id, never by login."""
