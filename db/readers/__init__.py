"""The ledger as it is read, a module for each question; every figure that is shown anywhere comes from here."""
