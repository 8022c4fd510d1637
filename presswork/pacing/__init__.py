"""When a request may go: concurrency, limits, cost cap, prompt cache; and what it is likely to take."""
