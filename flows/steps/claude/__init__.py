"""The Messages API: one request, its answer or error in our own words. Only this package imports the SDK."""
