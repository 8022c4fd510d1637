"""Code that all commands share: flags, finding the ledger, printing, errors and exit statuses."""
