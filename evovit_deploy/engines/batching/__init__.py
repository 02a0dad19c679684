"""Batching: requests of many threads, collected into batches for one engine."""
