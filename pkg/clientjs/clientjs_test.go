package clientjs_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/pointsmanhq/pointsman/pkg/clientjs"
	"github.com/pointsmanhq/pointsman/proto/clientmsg"
	"github.com/pointsmanhq/pointsman/proto/closecode"
)

func read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// node runs Node, where it is installed.
func node(t *testing.T, args ...string) string {
	t.Helper()
	path, err := exec.LookPath("node")
	if err != nil {
		t.Skip("Node is not installed")
	}
	out, err := exec.CommandContext(t.Context(), path, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("node %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

func TestEveryBehaviourInNode(t *testing.T) {
	node(t, "--check", "client.js")
	out := node(t, "--test", "--test-reporter=tap", "client.test.mjs")
	passed := regexp.MustCompile(`(?m)^# pass (\d+)$`).FindStringSubmatch(out)
	if passed == nil {
		t.Fatalf("it did not count:\n%s", out)
	}
	if n, err := strconv.Atoi(passed[1]); err != nil || n < 25 {
		t.Errorf("%d tests passed, %v", n, err)
	}
	t.Logf("%s tests passed in Node", passed[1])
}

func TestKnowsEveryCloseCode(t *testing.T) {
	rows := regexp.MustCompile(`(?m)^  (\d+): \{ name: "(\w+)", retry: (true|false) \},$`).FindAllStringSubmatch(read(t, "client.js"), -1)
	var got, want []string
	for _, r := range rows {
		got = append(got, r[1]+" "+r[2]+" "+r[3])
	}
	for _, c := range closecode.All() {
		want = append(want, fmt.Sprintf("%d %s %v", c.Code, c.Name, c.Retry))
	}
	if !slices.Equal(got, want) {
		t.Errorf("client.js knows\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestSpeaksTheProtocolOfThisVersion(t *testing.T) {
	code := read(t, "client.js")
	for _, want := range []string{
		`"` + clientmsg.Path + `"`, `"` + clientmsg.JSON + `"`, `"` + clientmsg.BearerPrefix + `"`, `type: "` + clientmsg.TypeResume + `"`,
		`type: "` + clientmsg.TypeAuth + `"`, `case "` + clientmsg.TypeExpiring + `"`, `case "` + clientmsg.TypeGoAway + `"`, `case "` + clientmsg.TypeWaiting + `"`,
	} {
		if !strings.Contains(code, want) {
			t.Errorf("client.js lacks %s", want)
		}
	}
	if strings.Contains(code, "import ") {
		t.Error("client.js depends on something")
	}
}

func TestPackageIsWhole(t *testing.T) {
	var pkg struct {
		Version, License, Type, Main, Types string
		Files                               []string
		Dependencies                        map[string]string
	}
	if err := json.Unmarshal([]byte(read(t, "package.json")), &pkg); err != nil {
		t.Fatal(err)
	}
	if pkg.Type != "module" || len(pkg.Dependencies) != 0 || pkg.License != "Apache-2.0" || pkg.Version == "" {
		t.Errorf("%+v", pkg)
	}
	for _, name := range append(pkg.Files, pkg.Main, pkg.Types) {
		if _, err := os.Stat(name); err != nil {
			t.Error(err)
		}
	}
	// What the module exports is what has types.
	names := regexp.MustCompile(`(?m)^export (?:const|class|function) (\w+)`)
	of := func(file string) (found []string) {
		for _, m := range names.FindAllStringSubmatch(read(t, file), -1) {
			found = append(found, m[1])
		}
		slices.Sort(found)
		return found
	}
	if js, ts := of("client.js"), of("client.d.ts"); !slices.Equal(js, ts) {
		t.Errorf("client.js exports %v, client.d.ts %v", js, ts)
	}
}

func TestPackageIsReadyForNPM(t *testing.T) {
	path, err := exec.LookPath("npm")
	if err != nil {
		t.Skip("npm is not installed")
	}
	out, err := exec.CommandContext(t.Context(), path, "pack", "--dry-run", "--json", "--offline").Output()
	if err != nil {
		t.Fatal(err)
	}
	type file struct{ Path string }
	type pack struct{ Files []file }
	var packs []pack
	if err := json.Unmarshal(out, &packs); err != nil {
		byName := map[string]pack{} // npm 12 answers so
		if err2 := json.Unmarshal(out, &byName); err2 != nil {
			t.Fatal(errors.Join(err, err2), string(out))
		}
		for _, p := range byName {
			packs = append(packs, p)
		}
	}
	if len(packs) != 1 {
		t.Fatalf("%d packages: %s", len(packs), out)
	}
	var got []string
	for _, f := range packs[0].Files {
		got = append(got, f.Path)
	}
	slices.Sort(got)
	if want := []string{"README.md", "client.d.ts", "client.js", "package.json"}; !slices.Equal(got, want) {
		t.Errorf("it would publish %v, want %v", got, want)
	}
}

func TestIsServedWithItsTypeAndAsksOnlyOnce(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !clientjs.Serve(w, r) {
			http.NotFound(w, r)
		}
	}))
	defer srv.Close()
	get := func(path, etag string) *http.Response {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, srv.URL+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if etag != "" {
			req.Header.Set("If-None-Match", etag)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		return resp
	}
	for path, kind := range map[string]string{clientjs.Path: "text/javascript", clientjs.TypesPath: "text/plain"} {
		r := get(path, "")
		etag := r.Header.Get("ETag")
		if r.StatusCode != http.StatusOK || !strings.HasPrefix(r.Header.Get("Content-Type"), kind) || etag == "" || !strings.Contains(r.Header.Get("Cache-Control"), "max-age=") {
			t.Errorf("%s: %d %v", path, r.StatusCode, r.Header)
		}
		if r := get(path, etag); r.StatusCode != http.StatusNotModified {
			t.Errorf("%s with its ETag: %d", path, r.StatusCode)
		}
	}
	if r := get("/v1/other.js", ""); r.StatusCode != http.StatusNotFound {
		t.Errorf("another path: %d", r.StatusCode)
	}
}
