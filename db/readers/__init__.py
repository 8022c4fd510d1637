"""The ledger as it is read, by question; every figure that is shown anywhere comes from here."""
