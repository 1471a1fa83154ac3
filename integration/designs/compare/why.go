package compare

import (
	"fmt"
	"strings"
)

// longPause is the shortest pause in milliseconds that wants a reason: less is a reconnect and what was missed meanwhile.
const longPause = 1000

// why names, fault by fault, each design in which a figure was not zero, and the reason; where none is known, what the
// checker found first.
func (r *Report) why() string {
	var b strings.Builder
	for _, fault := range AllFaults() {
		for _, d := range r.faultDesigns(fault) {
			f, _ := r.worst(d, fault)
			if f.Failed != "" {
				fmt.Fprintf(&b, "- *%s*, %s: it failed, so nothing is known: %s\n", fault, d, line(f.Failed))
				continue
			}
			for _, one := range []struct {
				what  string
				n     int64
				found string
			}{
				{"broken", f.Broken, f.FirstBroken}, {"lost", f.Lost, f.First}, {"repeated", f.Repeated, f.First}, {"reordered", f.Reordered, f.First},
				{"other findings", f.Other, f.First}, {"pause", int64(f.Pause) / longPause, f.Latest},
			} {
				if one.n == 0 {
					continue
				}
				reason := reasonOf(d, fault, one.what)
				switch {
				case reason == "" && one.found != "":
					reason = "not explained; the first finding is " + line(one.found)
				case reason == "":
					reason = "no reason is known, and the report has no finding of it."
				}
				fmt.Fprintf(&b, "- *%s*, %s, %s: %s\n", fault, d, one.what, reason)
			}
		}
	}
	if b.Len() == 0 {
		return "Every figure is zero, and no pause reached a second.\n"
	}
	return b.String()
}

const (
	noticed    = "the consumer group gives a dead member's partitions away when it has heard nothing for 6 s; "
	cacheAlone = "entries are looked for every 3 s, and only a server that misses its own has its clients join again."
)

// reasonOf explains what a fault does to a design, where the design itself is the reason.
func reasonOf(design, fault, what string) string {
	switch what {
	case "broken":
		return whyBroken(design, fault)
	case "pause":
		return whyPause(design, fault)
	}
	return "" // no design loses, repeats or reorders by itself
}

func whyBroken(design, fault string) string {
	switch {
	case design == "pointsman" && fault == KillOther:
		return "the router that died held these sockets; their clients came to another router with their cursors."
	case design == "pointsman":
		return "" // its promise is that there are none
	case design == "plainrouter" && fault == KillOther:
		return "every byte of these clients went through the router that died."
	case design == "plainrouter":
		return "a connection belongs to its key's partition: whoever's partition changes its owner is closed and comes back."
	case fault == KillServer || fault == DrainServer:
		return "these clients' sockets were on the server that ended; they came to another one with their cursors."
	}
	return ""
}

func whyPause(design, fault string) string {
	redistributor := strings.HasPrefix(design, "redistributor-")
	switch {
	case design == "plainrouter" && fault == KillServer:
		return noticed + "until then its clients are refused."
	case design == "plainrouter" && (fault == DrainServer || fault == AddServer):
		return "clients of a partition that moves come back when its new owner has read it to the end and says so in etcd."
	case redistributor && fault == KillOther:
		return noticed + "until then nobody forwards their records."
	case redistributor && fault == LoseCache:
		return cacheAlone
	}
	return ""
}
