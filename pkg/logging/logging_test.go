package logging_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/pointsmanhq/pointsman/pkg/logging"
)

func TestJSONLineHasTheFieldsThatMachinesExpect(t *testing.T) {
	var out bytes.Buffer
	log, _, err := logging.New(logging.Options{}, &out)
	if err != nil {
		t.Fatal(err)
	}
	log.Debug("not shown at info")
	log.Named("links").With(zap.String("node_id", "n1")).Info("link is up", zap.Duration("after", 1500*time.Millisecond))

	var line map[string]string
	if err := json.Unmarshal(out.Bytes(), &line); err != nil {
		t.Fatalf("%v in %q", err, out.String())
	}
	at := line["time"]
	delete(line, "time")
	if _, err := time.Parse("2006-01-02T15:04:05.000Z", at); err != nil {
		t.Errorf("time %q: %v", at, err)
	}
	want := map[string]string{"level": "info", "logger": "links", "msg": "link is up", "node_id": "n1", "after": "1.5s"}
	for k, v := range want {
		if line[k] != v {
			t.Errorf("%s = %q, want %q", k, line[k], v)
		}
	}
	if len(line) != len(want) {
		t.Errorf("line has other fields too: %s", out.String())
	}
}

func TestConsoleLineIsForPeople(t *testing.T) {
	var out bytes.Buffer
	log, _, err := logging.New(logging.Options{LogFormat: "console", LogLevel: "warn"}, &out)
	if err != nil {
		t.Fatal(err)
	}
	log.Info("not shown at warn")
	log.Warn("etcd is late", zap.Int("attempt", 3))
	if got, want := out.String(), " WARN etcd is late {\"attempt\": 3}\n"; !strings.HasSuffix(got, want) || strings.Count(got, "\n") != 1 {
		t.Errorf("got %q, want one line that ends in %q", got, want)
	}
}

func TestLevelChangesWhileTheProgramRuns(t *testing.T) {
	var out bytes.Buffer
	log, level, err := logging.New(logging.Options{LogLevel: "error"}, &out)
	if err != nil {
		t.Fatal(err)
	}
	log.Info("before")
	level.SetLevel(zapcore.InfoLevel)
	log.Info("after")
	if got := out.String(); strings.Contains(got, "before") || !strings.Contains(got, "after") {
		t.Errorf("got %q", got)
	}
}

func TestBadOptionsAreErrors(t *testing.T) {
	for _, o := range []logging.Options{{LogLevel: "loud"}, {LogFormat: "xml"}} {
		if _, _, err := logging.New(o, &bytes.Buffer{}); err == nil {
			t.Errorf("%+v: no error", o)
		}
	}
}

func TestLinesOfManyGoroutinesDoNotMix(t *testing.T) {
	var out bytes.Buffer
	log, _, err := logging.New(logging.Options{}, &out)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for range 50 {
				log.Info("a line", zap.Int("writer", i))
			}
		})
	}
	wg.Wait()
	lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
	if len(lines) != 400 {
		t.Errorf("%d lines, want 400", len(lines))
	}
	for _, line := range lines {
		if !json.Valid([]byte(line)) {
			t.Errorf("not JSON: %q", line)
		}
	}
}
