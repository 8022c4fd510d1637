"""What all commands share: flags, the ledgers they read, how anything is printed, and how a command ends."""
