"""Answer what auditors ask of a ledger, one module a question, each within a time limit."""
