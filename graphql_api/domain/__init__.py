"""The rules of tokens, independent of the caller. Standard library only."""
