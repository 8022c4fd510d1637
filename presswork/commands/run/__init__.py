"""`presswork run`, `demo` and `rehearse`: run a job, and show its progress and its summary."""
