"""Use cases: submit, dispatch, claim, record, cancel, rescan. Each is a function of an open `Farm`; none knows Celery or pixels.

A row of work is `ready`, then leased (worker, lease_until, attempts), then `done` or `failed`; SQL is the truth.
"""
