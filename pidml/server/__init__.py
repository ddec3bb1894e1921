"""The embedded server: machine protocol, pages and a small GRID, for tests and for laboratories without CERN.

``pidml.server.main.serve`` runs it, ``pidml.server.store.ServerStore`` is its programmatic interface (registering
machines, queueing tasks, reading results), usable from another process while the server runs.
"""
