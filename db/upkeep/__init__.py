"""Maintain the ledger while no run is active: measure its size, remove unneeded rows, and rebuild `content`."""
