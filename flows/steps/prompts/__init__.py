"""A template file: read, checked and rendered."""
