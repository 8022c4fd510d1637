"""The ways by which a list finds its generations: by the runs that can hold them, by key, by words, or by id."""
