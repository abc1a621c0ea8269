package matomo

import (
	"net/http"
	"path"
	"slices"
	"strings"
)

// place is what a path of Matomo is.
type place int

const (
	elsewhere place = iota // neither of the following: no token is passed on to it
	static                 // a file that no program reads parameters for
	reporting              // index.php: the user interface, and the API
	tracker                // takes hits
)

// scripts are Matomo's entry points, below its base path.
var scripts = map[string]place{
	"": reporting, "index.php": reporting,
	"matomo.php": tracker, "piwik.php": tracker,
	"js/tracker.php": tracker, "js/": tracker, "js/index.php": tracker,
}

// staticTypes are endings of files that web servers send without a program.
var staticTypes = map[string]bool{
	".js": true, ".css": true, ".map": true, ".png": true, ".gif": true, ".jpg": true, ".jpeg": true, ".svg": true,
	".ico": true, ".webp": true, ".woff": true, ".woff2": true, ".ttf": true, ".eot": true, ".html": true, ".txt": true,
	".json": true,
}

// placeOf returns what a request's path is. The comparison is exact: a path in any
// other spelling is elsewhere, whatever the server behind makes of it.
func (g *Gateway) placeOf(r *http.Request) place {
	rest, ok := strings.CutPrefix(r.URL.Path, g.base)
	if !ok {
		return elsewhere
	}
	if p, ok := scripts[rest]; ok {
		return p
	}
	if (r.Method == http.MethodGet || r.Method == http.MethodHead) && r.ContentLength == 0 &&
		staticTypes[path.Ext(rest)] && !strings.Contains(strings.ToLower(rest), ".php") {
		return static
	}
	return elsewhere
}

// likeTracker reports whether a web server could take a path for that of the tracker,
// as in /matomo.php/more and //matomo.php. Lists of hits there could have tokens.
func likeTracker(name string) bool {
	segments := strings.FieldsFunc(strings.ToLower(name), func(r rune) bool { return r == '/' || r == '\\' })
	return slices.ContainsFunc(segments, func(s string) bool {
		return s == "js" || strings.HasPrefix(s, "matomo.php") || strings.HasPrefix(s, "piwik.php") ||
			strings.HasPrefix(s, "tracker.php")
	})
}
