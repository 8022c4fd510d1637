"""Read what the steps of an earlier run came to, and what each outcome was made from."""
