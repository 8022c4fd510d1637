"""Try a template on a few records, without Prefect: a trial is a run of trigger `try`.

A trial goes through the whole engine. Its attempts are in the ledger and its answers fill the cache, so that the real
run pays nothing for them, but they are never current content until a run confirms them.
"""
