"""What other projects read and write, one file for each format. Here: nothing, so that each is imported for itself."""
