"""What Spark runs: source → transform → sink → catalog → gold, in the order a record meets them."""
