"""Pursue a prompt to its outcome: ask, judge, and ask again."""
