"""What prompts are made from: selects, handles of records and generations, conditions, parameters, briefs, items."""
