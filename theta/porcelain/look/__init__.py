"""What a repository, a commit or a checkpoint holds; nothing is changed."""
