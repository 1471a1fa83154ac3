//go:build !linux

package clientconn

import "syscall"

func unsent(syscall.RawConn) (int, bool) { return 0, false }
