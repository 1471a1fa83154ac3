// Package clientjs carries the JavaScript client, which routers serve to pages at its Path.
package clientjs

import (
	"bytes"
	_ "embed" // for the files below
	"encoding/hex"
	"hash/fnv"
	"net/http"
	"time"
)

// Where routers serve the module and its types.
const (
	Path      = "/v1/client.js"
	TypesPath = "/v1/client.d.ts"
)

//go:embed client.js
var module []byte

//go:embed client.d.ts
var types []byte

// Serve answers a request for Path or TypesPath; false when it is for neither. A page may keep the answer for five
// minutes and asks with its ETag then: after a deploy the new client is used soon.
func Serve(w http.ResponseWriter, r *http.Request) bool {
	var content []byte
	switch r.URL.Path {
	case Path:
		content = module
		w.Header().Set("Content-Type", "text/javascript; charset=utf-8")
	case TypesPath:
		content = types
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	default:
		return false
	}
	sum := fnv.New128a()
	_, _ = sum.Write(content) // it never fails
	h := w.Header()
	h.Set("ETag", `"`+hex.EncodeToString(sum.Sum(nil))+`"`)
	h.Set("Cache-Control", "public, max-age=300")
	h.Set("X-Content-Type-Options", "nosniff")
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(content))
	return true
}
