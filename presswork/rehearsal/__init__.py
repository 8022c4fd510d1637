"""Rehearse a run at full size against the sandbox, and estimate the real run from it."""
