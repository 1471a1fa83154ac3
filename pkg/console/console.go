// Package console is the operators' page: one page without a build step, at "/" of every admin server. It shows what
// the same server answers at /api/v1/status, and on a router also /api/v1/where.
package console

import (
	"embed"
	"io/fs"
	"net/http"
)

//go:embed page
var page embed.FS

// policy lets the page load nothing but its own parts, and no other page frame it.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// Add adds the page to an admin server.
func Add(handle func(pattern string, h http.Handler)) {
	root, err := fs.Sub(page, "page")
	if err != nil {
		panic(err) // the name is a constant
	}
	files := http.FileServerFS(root)
	own := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Security-Policy", policy)
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Referrer-Policy", "no-referrer")
		// The files change with the program, and are small.
		w.Header().Set("Cache-Control", "no-cache")
		files.ServeHTTP(w, r)
	})
	handle("GET /{$}", own)
	handle("GET /console/", own)
}
