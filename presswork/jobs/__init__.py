"""What can be run by its name: flows of the user's and templates, found, checked and called."""
