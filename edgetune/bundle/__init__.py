"""What ships: a folder that an app loads as it is, with the proof that it works."""
