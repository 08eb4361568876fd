"""What is put on the path of the suite's processes; nothing of it runs in greenq's own tests."""
