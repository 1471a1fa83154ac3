package session

// ledger is a client's one account over all its streams, in bytes of link.Record.Cost. What the nodes may
// still send plus what waits in the outbox never exceeds the window, but for one record per stream that may be
// larger than what was left.
type ledger struct {
	window int64
	queued int64 // accepted records that have not left the outbox
	under  int64 // what is under way on all streams
	lanes  int32 // Cores that share the account, at least 1 unless it is of several keys
	wide   bool  // it is of several keys
}

// add counts Cores in or out.
func (l *ledger) add(lanes int32) { l.lanes += lanes }

// A client with several keys has the window of one up to so many of them, and a part of it for each one more: the share
// of a stream is always the same. Smaller ones would not do, because a stream that is far behind gets no more than its
// share from each pass over the log; and one that shrinks could not be taken back from those who do not use it.
const keysOfAWindow = 8

// share is the most that one stream may have under way. Half of a lane's part of the window lets a second stream
// start at once during a handover.
func (l *ledger) share() int64 {
	if l.wide {
		return l.window / 2 / keysOfAWindow
	}
	return l.window / 2 / int64(l.lanes)
}

// whole is what all may have.
func (l *ledger) whole() int64 {
	if l.wide {
		return l.window / keysOfAWindow * int64(max(l.lanes, keysOfAWindow))
	}
	return l.window
}

// allowance is what a stream may have under way now, if its Core's other stream has what other says, and the other
// Cores' have what elsewhere says.
func (l *ledger) allowance(other, elsewhere int64) int64 {
	return max(0, min(l.share(), l.whole()-l.queued-max(0, other)-max(0, elsewhere)))
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
