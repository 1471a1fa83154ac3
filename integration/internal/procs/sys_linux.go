package procs

import (
	"bytes"
	"fmt"
	"os"
	"syscall"
)

// attributes are a process group of its own, and an end together with the thread that started it.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// schedState is the letter that the kernel shows for a process.
func schedState(pid int) (state byte, known bool) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, false
	}
	// The name may contain anything, also parentheses and spaces.
	if i := bytes.LastIndexByte(stat, ')'); i >= 0 && i+2 < len(stat) {
		return stat[i+2], true
	}
	return 0, false
}
