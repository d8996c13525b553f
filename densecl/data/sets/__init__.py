"""One data set a file, found by the file's name; see `densecl.data.dataset.DenseDataset`."""
