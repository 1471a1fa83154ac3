package session

// ledger is a client's one account over all its streams, in bytes of link.Record.Cost. What the nodes may
// still send plus what waits in the outbox never exceeds the window, but for one record per stream that may be
// larger than what was left.
type ledger struct {
	window int64
	queued int64 // accepted records that have not left the outbox
	under  int64 // what is under way on all streams
	lanes  int32 // Cores that share the account, at least 1 unless it is of several keys
	width  int32 // for how many the window is divided, see divide
	wide   bool  // it is of several keys
}

// leastWidth is for how many keys the window of a client with several is divided at least.
const leastWidth = 8

// add counts Cores in or out, and divides the window anew. Where keys come and go it is divided for a power of two of
// them, so that those that are there seldom have more under way than is theirs, see Feed.Reclaim; and not for fewer
// before a quarter is left, so that one key that comes and goes changes nothing.
func (l *ledger) add(lanes int32) {
	l.lanes += lanes
	if !l.wide {
		l.width = max(1, l.lanes)
		return
	}
	l.width = max(l.width, leastWidth)
	for l.width < l.lanes {
		l.width *= 2
	}
	for l.width > leastWidth && l.lanes <= l.width/4 {
		l.width /= 2
	}
}

// share is the most that one stream may have under way. Half of a lane's part of the window lets a second stream
// start at once during a handover.
func (l *ledger) share() int64 { return l.window / 2 / int64(l.width) }

// allowance is what a stream may have under way now, if its Core's other stream has what other says, and the other
// Cores' have what elsewhere says.
func (l *ledger) allowance(other, elsewhere int64) int64 {
	return max(0, min(l.share(), l.window-l.queued-max(0, other)-max(0, elsewhere)))
}

// grant returns how many bytes to give a stream that has left bytes under way (negative after a record larger
// than its credit). Small amounts are saved up, also for a stream that has nothing left: a Credit frame should be
// worth sending, and a node that reads the log again for a stream wants to send it more than one record. It comes
// to that: what others may have under way leaves a share to each once the outbox is empty.
func (l *ledger) grant(left, other, elsewhere int64) int64 {
	if give := l.allowance(other, elsewhere) - left; give > 0 && give >= l.share()/2 {
		return give
	}
	return 0
}
