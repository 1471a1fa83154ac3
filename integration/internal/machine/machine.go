// Package machine tells what processes and the whole machine use, from /proc.
package machine

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
)

const ticksPerSecond = 100 // USER_HZ, on every Linux that Go runs on

// Usage is a process's resident memory, in bytes, and the CPU seconds that it has used.
func Usage(pid int) (rss int64, cpu float64, ok bool) {
	if pid == 0 {
		return 0, 0, false
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, 0, false
	}
	// The name may hold anything; the numbers begin behind it with field 3.
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(fields) < 22 {
		return 0, 0, false
	}
	n := func(field int) int64 {
		v, _ := strconv.ParseInt(string(fields[field-3]), 10, 64) // the kernel's own numbers
		return v
	}
	return n(24) * int64(os.Getpagesize()), float64(n(14)+n(15)) / ticksPerSecond, true
}

// Seconds is how many CPU seconds the machine has used for anything.
func Seconds() float64 {
	stat, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0
	}
	first, _, _ := bytes.Cut(stat, []byte("\n"))
	sum := 0.0
	for i, f := range bytes.Fields(first) {
		// user nice system idle iowait irq softirq; what comes behind is counted in these or stolen.
		if i == 0 || i == 4 || i == 5 || i > 7 {
			continue
		}
		v, err := strconv.ParseFloat(string(f), 64)
		if err != nil {
			return 0
		}
		sum += v
	}
	return sum / ticksPerSecond
}

// LoadAverage is that of the last minute.
func LoadAverage() float64 {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return 0
	}
	word, _, _ := strings.Cut(string(text), " ")
	v, err := strconv.ParseFloat(word, 64)
	if err != nil {
		return 0
	}
	return v
}

// Describe says what the machine is, without naming it.
func Describe() string {
	words := []string{fmt.Sprintf("%d cores", runtime.NumCPU())}
	if info, err := os.ReadFile("/proc/meminfo"); err == nil {
		if fields := strings.Fields(string(info)); len(fields) > 1 && fields[0] == "MemTotal:" {
			if kb, err := strconv.ParseInt(fields[1], 10, 64); err == nil {
				words = append(words, fmt.Sprintf("%.0f GB of memory", float64(kb)/(1<<20)))
			}
		}
	}
	return strings.Join(words, ", ")
}

// Kernel is the kernel's release; empty where there is none to read.
func Kernel() string {
	text, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}
