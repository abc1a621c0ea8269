// Package php reads HTTP requests as PHP 8.2 does, and writes them in one
// canonical form.
//
// # Promise
//
// What [Read] returns is what a PHP program finds in $_GET, $_POST, $_FILES and
// php://input. What [Request.Apply] and [Params.Encode] write, PHP reads as the
// same arrays, and no name in it is one that PHP renames. A gateway that checks
// the result of Read, and forwards the result of Apply, forwards nothing that was
// not checked. Tests compare both with a real PHP.
//
// # Refusals
//
// [ErrUncertain] is the error for requests that PHP reads in a surprising way or
// only in some versions: more variables, files or levels than PHP keeps by
// default, several Content-Types, compressed forms, and multipart bodies that
// differ from what HTTP clients send. [ErrTooLarge] is the error for requests
// over a size limit.
package php

import "errors"

// ErrUncertain reports a request that PHP could read differently than this
// package. It must be refused.
var ErrUncertain = errors.New("request cannot be read with certainty")

// ErrTooLarge reports a URI or a body over its limit.
var ErrTooLarge = errors.New("request is too large")

// Limits bound what is read. The zero value has PHP's defaults. Values above what
// the PHP behind it is configured for are unsafe: PHP ignores what is beyond its
// own limits.
type Limits struct {
	// URI is the most bytes of a request's target. Zero means 64 KiB.
	URI int
	// Body is the most bytes of a body, as post_max_size. Zero means 8 MiB.
	Body int64
	// Vars is the most parameters of the query, and of the body, as
	// max_input_vars. Zero means 1000.
	Vars int
	// Depth is the most levels of brackets in a name, as
	// max_input_nesting_level. Zero means 64.
	Depth int
	// Files is the most files of a body, as max_file_uploads. Zero means 20.
	Files int
}

func (l Limits) withDefaults() Limits {
	if l.URI == 0 {
		l.URI = 64 << 10
	}
	if l.Body == 0 {
		l.Body = 8 << 20
	}
	if l.Vars == 0 {
		l.Vars = 1000
	}
	if l.Depth == 0 {
		l.Depth = 64
	}
	if l.Files == 0 {
		l.Files = 20
	}
	return l
}
