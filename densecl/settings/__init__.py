"""Settings: the grammar of names, recipes and the catalogue, arguments of classes."""
