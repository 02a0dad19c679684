"""What every engine on a GPU shares: memory, streams, recorded graphs, one caller at a time."""
