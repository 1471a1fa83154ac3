//go:build !pointsman_faults

package hub

// Faults are deliberate errors of a test build; this build has none.
type Faults struct{}

func (Faults) breakSocket() bool { return false }

// ParseFaults reads POINTSMAN_FAULT in a test build.
func ParseFaults(string) (Faults, error) { return Faults{}, nil }
