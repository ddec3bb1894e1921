"""The poller: asks a server for tasks, runs each as a law process, and reports; it survives everything it can.

:func:`pidml.poller.poll.poll` runs it; nothing about training is in it.
"""
