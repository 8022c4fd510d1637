"""Write what the ledger holds to files and streams: generations as JSON lines, CSV and Parquet, and a record's life."""
