"""Clients, each measured in its own process: Presswork, and the bare alternatives."""
