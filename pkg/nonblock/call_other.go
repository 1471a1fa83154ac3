//go:build !linux

package nonblock

import "syscall"

const supported = false

// Read is not known on this system.
func Read(uintptr, []byte) (int, error) { return 0, syscall.ENOSYS }

// Write is not known on this system.
func Write(uintptr, []byte) (int, error) { return 0, syscall.ENOSYS }

// WakeAt is not known on this system.
func WakeAt(uintptr, int) error { return syscall.ENOSYS }
