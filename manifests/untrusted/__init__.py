"""Check untrusted Parquet files and images before or while a library decodes them, to limit memory and time."""
