"""One person's aligned faces in one indexed store."""
