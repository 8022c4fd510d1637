"""Report on a run: live progress, the summary, and what Prefect shows of both."""
