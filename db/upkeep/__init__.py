"""The ledger kept small and right, while nobody works on it: what takes its room, what can go, what is made again."""
