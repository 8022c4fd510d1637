"""Readable differences of two texts or two JSON values, as data that page, terminal and JSON share."""
