"""The audit room's pages, each a module: what may be asked for, and what is read for it. Its HTML is in ../html/."""
