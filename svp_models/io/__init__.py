"""Files, names, folders and signals: what has to be done with care is done here, once."""
