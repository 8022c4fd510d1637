"""What a run opens and closes: writer, lease, endpoint, sources, spools, and how it is stopped."""
