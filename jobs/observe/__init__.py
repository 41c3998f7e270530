"""What a running job tells the outside: metrics for CloudWatch, and lines for its log."""
