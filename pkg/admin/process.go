package admin

import (
	"os"
	"runtime"
	"strconv"
	"strings"
)

// Memory is how many bytes of memory this process holds: what the system says is resident, or, where it does not say,
// what Go has taken from it.
func Memory() uint64 {
	if text, err := os.ReadFile("/proc/self/statm"); err == nil {
		if fields := strings.Fields(string(text)); len(fields) > 1 {
			if pages, err := strconv.ParseUint(fields[1], 10, 64); err == nil {
				return pages * uint64(os.Getpagesize())
			}
		}
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.Sys - m.HeapReleased
}
