"""Measure the audit room on a ledger of a million generations: `python -m bench.audit`."""
