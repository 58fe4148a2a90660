"""What only the book's pages need: runs as one table, claims with their records, and every figure."""
