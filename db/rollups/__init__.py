"""Add up runs once, when they close. The same selects add up the runs that are open."""
