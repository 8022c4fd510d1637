"""What a run says of itself: live progress, the summary, and what Prefect shows of both."""
