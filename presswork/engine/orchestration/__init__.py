"""Connect the engine to Prefect: the host, chunk tasks and their cache, shards, and the origin of a run."""
