"""Storage: files written whole or not at all, tables read with care, and whose a file is."""
