"""What can a person ask for? One file a command."""
