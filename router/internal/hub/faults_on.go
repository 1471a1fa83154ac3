//go:build pointsman_faults

package hub

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
)

// Faults are deliberate errors, so that the checker can be checked. They exist in test builds only.
type Faults struct {
	breaks float64 // probability per record that the client's socket is broken
}

func (f Faults) breakSocket() bool { return f.breaks > 0 && rand.Float64() < f.breaks }

// ParseFaults reads the text of POINTSMAN_FAULT: a comma-separated list of name:probability, of which a router knows
// break. The others are the node's.
func ParseFaults(text string) (Faults, error) {
	var f Faults
	for _, part := range strings.Split(text, ",") {
		name, value, _ := strings.Cut(part, ":")
		if name != "break" {
			continue
		}
		p, err := strconv.ParseFloat(value, 64)
		if err != nil || p < 0 || p > 1 {
			return f, fmt.Errorf("POINTSMAN_FAULT %q: break wants a probability", part)
		}
		f.breaks = p
	}
	return f, nil
}
