package compare

import (
	"context"
	"fmt"
	"net"
	"os/exec"
	"regexp"
	"strconv"
	"strings"

	"github.com/pointsmanhq/pointsman/integration/designs/arena"
)

// traffic is what sockets have carried, as the kernel counts it: the same for every design, whatever its programs say.
type traffic map[pair]socket

type pair struct{ local, peer string }

type socket struct {
	pid      int
	received int64
}

// sockets asks ss (of iproute2) for every established TCP socket.
func sockets(ctx context.Context) (traffic, error) {
	out, err := exec.CommandContext(ctx, "ss", "-tinpHO", "state", "established").Output()
	if err != nil {
		return nil, fmt.Errorf("ask ss for sockets (Debian: apt-get install iproute2): %w", err)
	}
	pid, received := regexp.MustCompile(`pid=(\d+)`), regexp.MustCompile(`bytes_received:(\d+)`)
	all := make(traffic)
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line)
		if len(f) < 4 {
			continue
		}
		var s socket
		if m := pid.FindStringSubmatch(line); m != nil {
			s.pid, _ = strconv.Atoi(m[1]) // digits
		}
		if m := received.FindStringSubmatch(line); m != nil {
			s.received, _ = strconv.ParseInt(m[1], 10, 64) // digits
		}
		all[pair{plain(f[2]), plain(f[3])}] = s
	}
	return all, nil
}

// plain writes an address as programs do.
func plain(addr string) string {
	return strings.NewReplacer("[::ffff:", "", "]", "").Replace(addr)
}

// flows are the bytes between two snapshots.
type flows struct {
	ingest      int64 // what the tier that reads the topic got from Kafka
	reads       int64 // what all members got from Kafka
	between     int64 // between members, and through Kafka from redistributors to servers
	backchannel int64 // to and from the cache
}

// during takes the difference of two snapshots.
func during(before, after traffic, members []arena.Member, reader string, kafka []string, cache string) flows {
	roles := make(map[int]string)
	twoTiersByKafka := false
	for _, m := range members {
		roles[m.PID] = m.Role
		twoTiersByKafka = twoTiersByKafka || m.Role == arena.Redistributor
	}
	var f flows
	for at, s := range after {
		n := s.received
		if old, ok := before[at]; ok {
			n -= old.received
		}
		role := roles[s.pid]
		switch _, peerIsMember := roles[after[pair{at.peer, at.local}].pid]; {
		case cache != "" && (at.peer == cache && role != "" || at.local == cache && peerIsMember):
			f.backchannel += n
		case role == "":
		case contains(kafka, at.peer):
			f.reads += n
			switch {
			case role == reader:
				f.ingest += n
			case role == arena.Server && twoTiersByKafka:
				f.between += n
			}
		case peerIsMember:
			f.between += n
		}
	}
	return f
}

func contains(addrs []string, addr string) bool {
	for _, a := range addrs {
		if a == addr {
			return true
		}
		if h, p, err := net.SplitHostPort(a); err == nil && h == "localhost" && strings.HasSuffix(addr, ":"+p) {
			return true
		}
	}
	return false
}
