"""Data sets as they are downloaded, one reader per layout: which files are real, which fake, made from which. Opens no video."""
