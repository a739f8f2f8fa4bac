"""Pages for people: a report's data as one self-contained HTML file, as Markdown, as a cell of a notebook."""
