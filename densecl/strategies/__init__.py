"""Methods: one file each, on the hooks of `base`."""
