"""What builds the Go programs that tests run."""
