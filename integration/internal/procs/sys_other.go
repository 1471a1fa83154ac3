//go:build unix && !linux

package procs

import "syscall"

// attributes are a process group of its own. Only Linux also ends a child with a parent that was killed.
func attributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

// schedState is not known here: SIGSTOP is trusted to have worked.
func schedState(int) (state byte, known bool) { return 0, false }
