"""Jobs that run by name, flows and templates: find, check and call them."""
