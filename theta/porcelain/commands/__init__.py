"""What a command does, without its command line: a request goes in, a result comes out."""
