"""Many recordings: read the list, run it on a pool of workers, and collect the results."""
