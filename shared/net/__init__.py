"""What goes out on a model's or a user's behalf: where it may go, and over which connections."""
