"""Images: finding, decoding and transforming them, a batch at a time."""
