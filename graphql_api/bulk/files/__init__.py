"""Files of records, in and out. What a record means is not known here, except the names of columns."""
