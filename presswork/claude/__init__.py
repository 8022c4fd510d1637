"""The Messages API: one request by the SDK, and its answer, its error or its limits in our own words."""
