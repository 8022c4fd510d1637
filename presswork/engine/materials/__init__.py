"""The inputs of prompts: selects, handles of records and generations, conditions, parameters, briefs, items."""
