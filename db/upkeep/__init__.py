"""The ledger kept small and in order, while nobody works on it: what takes the room, and what can go or be made again."""
