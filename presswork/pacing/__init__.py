"""Decide when a request may be sent (concurrency, limits, cost cap, prompt cache), and estimate what it will use."""
