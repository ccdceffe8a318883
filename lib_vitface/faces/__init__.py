"""Finding, following and describing faces in frames."""
