package link_test

import (
	"errors"
	"fmt"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/pointsmanhq/pointsman/proto/link"
	"github.com/pointsmanhq/pointsman/proto/link/linkpb"
)

func FuzzDecodeToNode(f *testing.F)   { fuzz(f, true) }
func FuzzDecodeToRouter(f *testing.F) { fuzz(f, false) }

// fuzz holds the decoder to three things on any input: it does not panic, what it accepts the generated code
// accepts too, and what it understood can be written and read again without a difference.
func fuzz(f *testing.F, node bool) {
	for seed := range uint64(5) {
		for _, fr := range newRandom(seed).eachFrame() {
			if toNode(fr) == node {
				f.Add(appendFrame(nil, fr))
				f.Add(newRandom(seed).foreign(appendFrame(nil, fr), 0))
			}
		}
	}
	f.Fuzz(func(t *testing.T, msg []byte) {
		frames, err := decode(msg, node)
		if err != nil {
			if !errors.Is(err, link.ErrMalformed) {
				t.Fatalf("error of another kind: %v", err)
			}
			return
		}
		batch := &linkpb.Batch{}
		if err := proto.Unmarshal(msg, batch); err != nil {
			t.Fatalf("generated code refuses it: %v", err)
		}
		if len(batch.Frames) != len(frames) {
			t.Fatalf("%d frames, generated code sees %d", len(frames), len(batch.Frames))
		}
		var again []byte
		for _, fr := range frames {
			again = appendFrame(again, fr)
		}
		second, err := decode(again, node)
		if err != nil {
			t.Fatalf("written again: %v", err)
		}
		if fmt.Sprintf("%#v", deref(second)) != fmt.Sprintf("%#v", deref(frames)) {
			t.Fatalf("written and read again:\n got %#v\nwant %#v", deref(second), deref(frames))
		}
	})
}

// deref spells frames out, for comparison.
func deref(frames []any) (out []string) {
	for _, f := range frames {
		out = append(out, fmt.Sprintf("%#v", f))
	}
	return out
}
