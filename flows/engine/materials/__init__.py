"""What prompts are made from: handles of records and generations, conditions, parameters."""
