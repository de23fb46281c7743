"""Files of records, in and out. What a record means is not known here, but for the names of a token's columns."""
