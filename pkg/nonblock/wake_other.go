//go:build !linux

package nonblock

import "errors"

var errUnknown = errors.New("not known on this system")

// WakeAt is not known on this system.
func WakeAt(uintptr, int) error { return errUnknown }
