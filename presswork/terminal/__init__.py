"""The terminal: flags, screens, and how a command ends."""
