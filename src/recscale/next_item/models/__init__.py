"""Models of the next item: ids of items in, hidden states out; one file a family."""
