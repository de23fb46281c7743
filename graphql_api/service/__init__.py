"""What can be done, by whom; one transaction a call."""
