package simulate

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// mutant is a deliberate bug: a change of one place of the real sources, which the simulation has to notice. The old
// text must be there exactly once, so that a mutant cannot outlive the code that it breaks.
type mutant struct {
	name     string
	file     string
	old, new string
}

// The first twelve are those that the simulation is measured by; the others are bugs that it found, or that were
// close.
var mutants = []mutant{
	{
		name: "no cursor check", file: "router/internal/session/core.go",
		old: "if r.Offset < c.next {", new: "if false {",
	},
	{
		// The new stream brings everything from the cursor on, so that nothing is lost by this: what shows is
		// the pause until it has caught up.
		name: "detach before the new head has caught up", file: "router/internal/session/core.go",
		old: "if reached >= c.next {", new: "if reached >= c.next || true {",
	},
	{
		name: "checkpoint that covers a stream not yet attached", file: "router/internal/links/streams.go",
		old: "st.since = pc.count", new: "st.since = 0 * pc.count",
	},
	{
		name: "checkpoint from the high watermark", file: "wsnode/internal/partition/checkpoint.go",
		old: "Next: l.head, Except: except", new: "Next: max(l.head, l.bounds.High), Except: except",
	},
	{
		name: "source switched above the head", file: "wsnode/internal/partition/loop.go",
		old: "if b.From > l.head {", new: "if false {",
	},
	{
		name: "credit leak", file: "router/internal/session/core.go",
		old: "\tc.ledger.queued -= cost\n", new: "\tif c.secondary.link == 0 {\n\t\tc.ledger.queued -= cost\n\t}\n",
	},
	{
		name: "credit not given back for duplicates", file: "router/internal/session/core.go",
		old: "\t\tc.dropped++\n", new: "\t\tc.dropped++\n\t\tc.ledger.queued += cost\n",
	},
	{
		name: "stale claim accepted after the generation went back", file: "proto/directory/directory.go",
		old: "if c.Incarnation != o.Incarnation {", new: "if false {",
	},
	{
		name: "ring eviction ignored", file: "wsnode/internal/partition/ring.go",
		old: "r.low = e.rec.Offset + 1", new: "r.low += 0",
	},
	{
		name: "scan joins live one record late", file: "wsnode/internal/partition/scan.go",
		old: "s.next, s.hint = max(s.next, c.pos), none", new: "s.next, s.hint = max(s.next, c.pos+1), none",
	},
	{
		name: "gap believed from a secondary link", file: "router/internal/session/core.go",
		old: "if c.covers(other) {", new: "if c.covers(other) && s == &c.primary {",
	},
	{
		name: "stale topic id", file: "router/internal/session/core.go",
		old: "\tc.topicID, c.partition = topicID, partition\n\tc.start", new: "\tc.partition = partition\n\tc.start",
	},

	{
		name: "detach before the new stream is attached", file: "router/internal/session/core.go",
		old: "if s := &c.secondary; c.covers(s) {\n\t\treached := int64(-1)",
		new: "if s := &c.secondary; s.link != 0 {\n\t\treached := c.next",
	},
	{
		name: "reading goes on in a topic that was recreated", file: "wsnode/internal/partition/loop.go",
		old: "\tl.stop()\n\tl.committed = -1\n", new: "\tl.committed = -1\n",
	},
	{
		name: "checkpoint covers streams that are behind", file: "wsnode/internal/partition/checkpoint.go",
		old: "except = append(except, s.id)", new: "_ = s",
	},
	{
		name: "retention overtakes the reader in silence", file: "wsnode/internal/partition/loop.go",
		old: "l.out.Gap(at.id, link.Gap{Stream: id, From: next, To: to, Reason: reason})", new: "_ = next",
	},
	{
		name: "gaps of both streams disbelieved for the sake of the other", file: "router/internal/session/core.go",
		old: "if c.covers(other) {", new: "if c.covers(other) || s == &c.secondary {",
	},
	{
		name: "hole of a promoted stream is not asked for again", file: "router/internal/session/core.go",
		old: "if p := c.primary; p.link != 0 && p.attached", new: "if p := c.primary; false && p.link != 0 && p.attached",
	},
	{
		name: "claim equal to another's waits for ever", file: "wsnode/internal/claims/core.go",
		old: "return directory.Claim(o).Newer(other)", new: "return !other.Newer(directory.Claim(o))",
	},
	{
		name: "start at a time misses what comes while it is looked up", file: "wsnode/internal/partition/loop.go",
		old: "\t\toffset = s.next\n", new: "\t\toffset = l.end()\n",
	},
	{
		name: "new partition begun before the old one's end", file: "router/internal/session/trail.go",
		old: "ln != nil && ln.core.next < s.Until {", new: "ln != nil && ln.core.next < 0*s.Until {",
	},
	{
		name: "old partition dropped at once", file: "router/internal/session/path.go",
		old: "path[j].Closed >= 0 && at.Next >= max(path[j].Closed, path[j].Until)", new: "at.Next >= path[j].Until",
	},
	{
		name: "old partition kept until closed, and not to its end", file: "router/internal/session/path.go",
		old: "path[j].Closed >= 0 && at.Next >= max(path[j].Closed, path[j].Until)", new: "path[j].Closed >= 0",
	},
	{
		name: "new partition begun at its end", file: "router/internal/session/trail.go",
		old: "greeted: true, next: s.From,", new: "greeted: true, next: max(s.From, s.Until*0+5),",
	},
	{
		name: "cursor lists only where the key lives now", file: "router/internal/session/trail.go",
		old: "for _, ln := range t.lanes {\n\t\tdst = append(dst,", new: "for _, ln := range t.lanes[len(t.lanes)-1:] {\n\t\tdst = append(dst,",
	},
	{
		name: "checkpoint of several keys covers one that is not live", file: "router/internal/session/feed.go",
		old: "} else if c.placed() {\n\t\tc.join()\n\t\treturn c.topicID,", new: "} else if c.placed() || c.target != 0 {\n\t\tc.join()\n\t\treturn c.topicID,",
	},
	{
		name: "cursor of one key given to another", file: "router/internal/session/several.go",
		old: "\t\tdst = m.place(dst)\n", new: "\t\tif dst = s.keys[0].place(dst); len(dst) > 0 {\n\t\t\tdst[len(dst)-1].Key = m.asked.Key\n\t\t}\n",
	},
	{
		name: "keys of a socket that do not share its window", file: "router/internal/session/several.go",
		old: "m.feed.open(s.cfg, m, &s.book, o)", new: "m.feed.open(s.cfg, m, &ledger{window: s.book.window, wide: true}, o)",
	},
	{
		name: "credit of several keys given back to one", file: "router/internal/session/several.go",
		old: "s.keys[(s.next+i)%n].feed.regrant()", new: "s.keys[i*0].feed.regrant()",
	},
	{
		name: "scan resumes after what a full link refused", file: "wsnode/internal/partition/scan.go",
		old: "\t\t\t\ts.next = rec.Offset\n", new: "\t\t\t\ts.next = rec.Offset + 1\n",
	},
}

// apply returns the mutated source.
func (m mutant) apply(root string) (path string, source []byte, err error) {
	path = filepath.Join(root, filepath.FromSlash(m.file))
	data, err := os.ReadFile(path)
	if err != nil {
		return "", nil, err
	}
	if n := bytes.Count(data, []byte(m.old)); n != 1 {
		return "", nil, fmt.Errorf("%s has %d places that read %q, want 1: adapt the mutant to the code", m.file, n, m.old)
	}
	source = bytes.Replace(data, []byte(m.old), []byte(m.new), 1)
	if _, err := parser.ParseFile(token.NewFileSet(), path, source, 0); err != nil {
		return "", nil, fmt.Errorf("the mutated file does not parse: %w", err)
	}
	return path, source, nil
}

func root(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestMutantsFitTheSources keeps the mutants alive between the runs that use them.
func TestMutantsFitTheSources(t *testing.T) {
	for _, m := range mutants {
		if _, _, err := m.apply(root(t)); err != nil {
			t.Errorf("%s: %v", m.name, err)
		}
	}
}

// mutantSeeds is within how many schedules a mutant must be caught.
const mutantSeeds = 1000

// TestMutantsAreCaught builds the simulation with each mutant and expects a violation.
func TestMutantsAreCaught(t *testing.T) {
	if os.Getenv("POINTSMAN_MUTANTS") == "" {
		t.Skip("it builds the simulation two dozen times: set POINTSMAN_MUTANTS=1, or run make simulate-mutants")
	}
	for _, m := range mutants {
		t.Run(m.name, func(t *testing.T) {
			binary := m.build(t, root(t))
			n, text := hunt(t, binary)
			if n == 0 {
				t.Fatalf("not caught within %d schedules", mutantSeeds)
			}
			t.Logf("caught by schedule %d: %s", n, text)
		})
	}
}

func (m mutant) build(t *testing.T, root string) string {
	t.Helper()
	dir := t.TempDir()
	path, source, err := m.apply(root)
	if err != nil {
		t.Fatal(err)
	}
	mutated, overlay, binary := filepath.Join(dir, "mutated.go"), filepath.Join(dir, "overlay.json"), filepath.Join(dir, "simulate")
	replace, err := json.Marshal(map[string]map[string]string{"Replace": {path: mutated}})
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{mutated: source, overlay: replace} {
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("go", "build", "-overlay", overlay, "-o", binary, "./integration/cmd/simulate")
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	return binary
}

var violatedAfter = regexp.MustCompile(`violated after (\d+) schedules`)

// hunt plays schedules until one is violated and says which it was, 0 for none. A mutant that hangs is caught, too.
func hunt(t *testing.T, binary string) (n int, text string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, binary, "-seeds", strconv.Itoa(mutantSeeds)).CombinedOutput()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0, ""
	case ctx.Err() != nil:
		t.Fatalf("the mutant hangs:\n%s", out)
	case !errors.As(err, &exit):
		t.Fatal(err)
	}
	found := violatedAfter.FindSubmatch(out)
	if found == nil {
		t.Fatalf("no violation in the output:\n%s", out)
	}
	n, err = strconv.Atoi(string(found[1]))
	if err != nil {
		t.Fatal(err)
	}
	first, _, _ := strings.Cut(string(out), "\n")
	return n, first
}
