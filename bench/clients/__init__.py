"""What is measured, each client in a process of its own: Presswork, and the bare alternatives."""
