"""What the engine does with Prefect: its tasks, its cache, its server, and what started a run."""
