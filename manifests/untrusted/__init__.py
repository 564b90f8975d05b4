"""Bound untrusted bytes before a library decodes them: Parquet files and encoded images."""
