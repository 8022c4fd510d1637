"""What a run says of itself in Prefect: artifacts, events, and what it spent."""
