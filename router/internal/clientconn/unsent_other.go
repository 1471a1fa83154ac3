//go:build !linux

package clientconn

import "syscall"

func limitUnsent(syscall.RawConn, int) {}

func unsent(syscall.RawConn) (int, bool) { return 0, false }
