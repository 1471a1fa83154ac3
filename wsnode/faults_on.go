//go:build pointsman_faults

package wsnode

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"

	"github.com/pointsmanhq/pointsman/proto/link"
	"github.com/pointsmanhq/pointsman/wsnode/internal/partition"
)

// damage reads the text of POINTSMAN_FAULT: a comma-separated list of name:probability, of which a node knows drop,
// repeat and swap. What it returns damages the records that leave a partition, so that the checker can be checked.
func damage(text string) (func(partition.Output) partition.Output, error) {
	var d damaged
	for part := range strings.SplitSeq(text, ",") {
		name, value, _ := strings.Cut(part, ":")
		var to *float64
		switch name {
		case "drop":
			to = &d.drop
		case "repeat":
			to = &d.repeat
		case "swap":
			to = &d.swap
		default:
			continue // the router's
		}
		p, err := strconv.ParseFloat(value, 64)
		if err != nil || p < 0 || p > 1 {
			return nil, fmt.Errorf("POINTSMAN_FAULT %q: %s wants a probability", part, name)
		}
		*to = p
	}
	return func(out partition.Output) partition.Output {
		own := d
		own.Output = out
		return &own
	}, nil
}

// damaged is the output of one partition. Each field but Output is the probability per record.
type damaged struct {
	partition.Output
	drop, repeat, swap float64

	held   *link.Record // waits for the next record of its key, which goes before it
	heldTo partition.LinkID
}

func (d *damaged) Record(l partition.LinkID, f *link.Record) {
	switch {
	case d.held != nil && d.heldTo == l && bytes.Equal(d.held.Key, f.Key):
		d.Output.Record(l, f)
		d.Output.Record(l, d.held)
		d.held = nil
	case d.held == nil && hit(d.swap):
		d.held, d.heldTo = kept(f), l
	case hit(d.drop):
	case hit(d.repeat):
		d.Output.Record(l, f)
		// Routers drop what is below the cursor. Only a copy that claims a later offset reaches a client.
		again := *f
		again.Offset++
		d.Output.Record(l, &again)
	default:
		d.Output.Record(l, f)
	}
}

func hit(p float64) bool { return p > 0 && rand.Float64() < p }

// kept is a copy that outlives the call that brought f.
func kept(f *link.Record) *link.Record {
	c := *f
	c.Streams, c.Key, c.Value = slices.Clone(f.Streams), bytes.Clone(f.Key), bytes.Clone(f.Value)
	c.Headers = make([]link.Header, len(f.Headers))
	for i, h := range f.Headers {
		c.Headers[i] = link.Header{Key: bytes.Clone(h.Key), Value: bytes.Clone(h.Value)}
	}
	return &c
}
