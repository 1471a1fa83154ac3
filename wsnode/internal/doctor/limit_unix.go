//go:build unix

package doctor

import "syscall"

// fileLimit is how many files this process may open: Go raises the soft limit to the hard one.
func fileLimit() (uint64, error) {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 0, err
	}
	return uint64(limit.Max), nil //nolint:unconvert // it is signed on some systems
}
