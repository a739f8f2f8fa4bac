"""Care of a repository: completing, checking, costs, who changed what, undoing."""
