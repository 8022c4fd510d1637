"""`presswork templates try`: ask about a few records, at each save if wanted, and show what became of them."""
