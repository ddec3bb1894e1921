"""What a training machine says to an AliceTraINT server: claims, statuses and uploads, none of them lost.

:mod:`~pidml.alicetraint.client` speaks the protocol, :mod:`~pidml.alicetraint.jobs` keeps what was claimed, and
:mod:`~pidml.alicetraint.outbox` sends files and statuses once, now or later.
"""
