"""What both daemons' `doctor` looks at. Checks judge facts; facts are gathered at the edges, and nothing is changed."""
