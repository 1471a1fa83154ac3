//go:build !unix

package nonblock

const supported = false

// Read is not known on this system.
func Read(uintptr, []byte) (int, error) { return 0, errUnknown }

// Write is not known on this system.
func Write(uintptr, []byte) (int, error) { return 0, errUnknown }
