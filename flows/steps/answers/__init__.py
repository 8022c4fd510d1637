"""One prompt to its outcome."""
