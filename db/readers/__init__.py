"""Read the ledger: one module for each question. All figures that are shown anywhere come from here."""
