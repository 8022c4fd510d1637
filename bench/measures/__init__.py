"""The measurements that need steps of their own; rows.py lists all."""
