package edge

import (
	"net/http"

	"github.com/pointsmanhq/pointsman/pkg/clientjs"
)

// script serves the JavaScript client; false when the request is for something else. Pages of origins that may connect
// may also import it.
func (e *Edge) script(w http.ResponseWriter, r *http.Request) bool {
	if r.URL.Path != clientjs.Path && r.URL.Path != clientjs.TypesPath {
		return false
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "the client is fetched with GET", http.StatusMethodNotAllowed)
		return true
	}
	w.Header().Add("Vary", "Origin")
	if origin := r.Header.Get("Origin"); origin != "" && e.checkOrigin(r) == nil {
		w.Header().Set("Access-Control-Allow-Origin", origin)
	}
	return clientjs.Serve(w, r)
}
