"""What is true of tokens, whoever asks. Standard library only."""
