"""Files of weights and styles, one format a file; every loader is strict."""
