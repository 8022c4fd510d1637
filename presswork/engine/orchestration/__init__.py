"""What the engine does with Prefect: its host, its tasks, its cache, its server, shards, and what started a run."""
