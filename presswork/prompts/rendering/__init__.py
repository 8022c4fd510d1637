"""Render the blocks of a template, and mark in a stored prompt what came from its record."""
