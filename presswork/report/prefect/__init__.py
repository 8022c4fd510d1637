"""Report on a run in Prefect: artifacts, events, and how much it spent."""
