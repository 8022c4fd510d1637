"""`presswork templates`: list templates, find mistakes in them, and show the request that one makes."""
