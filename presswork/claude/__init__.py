"""Call the Messages API: send one request with the SDK, and return its answer, error and limits as our own types."""
