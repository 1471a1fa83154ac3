package clientmsg_test

import (
	"encoding/json"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/pointsmanhq/pointsman/proto/clientmsg"
	"github.com/pointsmanhq/pointsman/proto/closecode"
	"github.com/pointsmanhq/pointsman/proto/link"
)

// page is docs/protocol.md, from which people write clients.
func page(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../../docs/protocol.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestProtocolPageHasAnExampleOfEveryMessage(t *testing.T) {
	examples := map[string]int{}
	for _, block := range regexp.MustCompile("(?s)```json\n(.*?)```").FindAllStringSubmatch(page(t), -1) {
		for line := range strings.Lines(block[1]) {
			var m struct{ Type string }
			err := json.Unmarshal([]byte(line), &m)
			switch m.Type {
			case clientmsg.TypeResume, clientmsg.TypeAuth, clientmsg.TypeSubscribe, clientmsg.TypeUnsubscribe:
				if err == nil {
					_, err = clientmsg.ParseControl([]byte(line))
				}
			default:
				if err == nil {
					_, err = clientmsg.Parse([]byte(line))
				}
			}
			if err != nil {
				t.Errorf("%v: %s", err, line)
			}
			examples[m.Type]++
		}
	}
	for _, kind := range []string{
		clientmsg.TypeHello, clientmsg.TypeRecord, clientmsg.TypeCheckpoint, clientmsg.TypeGap, clientmsg.TypeWaiting,
		clientmsg.TypeGoAway, clientmsg.TypeExpiring, clientmsg.TypeResume, clientmsg.TypeAuth,
		clientmsg.TypeSubscribed, clientmsg.TypeUnsubscribed, clientmsg.TypeRefused, clientmsg.TypeSubscribe, clientmsg.TypeUnsubscribe,
	} {
		if examples[kind] == 0 {
			t.Errorf("no example of %q", kind)
		}
	}
}

func TestProtocolPageSaysWhatTheCodeSays(t *testing.T) {
	text := page(t)
	for _, want := range []string{clientmsg.Path, clientmsg.JSON, clientmsg.Raw, clientmsg.BearerPrefix, closecode.Markdown(), closecode.StatusMarkdown(), "128 KB", "Values may nest 500 deep"} {
		if !strings.Contains(text, want) {
			t.Errorf("it does not say %q", want)
		}
	}
	if clientmsg.MaxControl != 128<<10 || clientmsg.MaxNesting != 500 {
		t.Error("it names other limits than the code has")
	}
	for _, reason := range []string{
		link.GapRetention.String(), link.GapReplayLimit.String(), link.GapTopic.String(), link.GapTruncated.String(),
		clientmsg.RefusedSingle, clientmsg.RefusedForbidden, clientmsg.RefusedTooMany, clientmsg.RefusedAlready, clientmsg.RefusedUnknown,
		clientmsg.RefusedCursor, clientmsg.RefusedBadRequest, clientmsg.RefusedUnavailable,
	} {
		if !strings.Contains(text, "`"+reason+"`") {
			t.Errorf("it does not say %q", reason)
		}
	}
}

func TestProtocolPageShowsThePythonProgramThatIsTested(t *testing.T) {
	program, err := os.ReadFile("../../docs/follow.py")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(page(t), "```python\n"+string(program)+"```\n") {
		t.Error("docs/protocol.md shows another program than docs/follow.py")
	}
	// It names the codes that end it; the table knows them.
	final := regexp.MustCompile(`FINAL = \{([\d, ]+)\}`).FindSubmatch(program)
	if final == nil {
		t.Fatal("it has no list of final codes")
	}
	var want []string
	for _, c := range closecode.All() {
		if !c.Retry {
			want = append(want, strconv.Itoa(c.Code))
		}
	}
	if got := strings.Split(string(final[1]), ", "); !slices.Equal(got, want) {
		t.Errorf("it ends at codes %v, want %v", got, want)
	}
	// And the statuses at which it comes back; the table knows the router's, and 502 and 504 are a proxy's.
	again := regexp.MustCompile(`AGAIN = \{([\d, ]+)\}`).FindSubmatch(program)
	if again == nil {
		t.Fatal("it has no list of statuses")
	}
	want = []string{"502", "504"}
	for _, s := range closecode.Statuses() {
		if s.Retry {
			want = append(want, strconv.Itoa(s.Status))
		}
	}
	slices.Sort(want)
	if got := strings.Split(string(again[1]), ", "); !slices.Equal(got, want) {
		t.Errorf("it comes back at statuses %v, want %v", got, want)
	}
}
