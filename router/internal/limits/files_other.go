//go:build !unix

package limits

import "math"

// RaiseOpenFiles does nothing where there is no limit of open files.
func RaiseOpenFiles() (uint64, error) { return OpenFiles() }

// OpenFiles is any number where there is no limit of open files.
func OpenFiles() (uint64, error) { return math.MaxInt32, nil }
