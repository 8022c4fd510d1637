"""`presswork templates`: which there are, and what is wrong with them."""
