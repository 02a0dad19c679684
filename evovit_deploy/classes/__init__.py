"""Classes: their names, their scores in an answer, and folders that are named after them."""
