package api

import _ "embed"

// ProblemsText describes each type of problem under a heading of its own, in
// Markdown.
//
//go:embed problems.md
var ProblemsText string
