"""RQ's path of extensions; RQ 3.0 has none left, and neither has greenq."""
