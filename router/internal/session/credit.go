package session

// ledger is a session's one account over all its streams, in bytes of link.Record.Cost. What the nodes may
// still send plus what waits in the outbox never exceeds the window, but for one record per stream that may be
// larger than what was left.
type ledger struct {
	window int64
	queued int64 // accepted records that have not left the outbox
}

// share is the most that one stream may have under way. Half the window each lets a second stream start at
// once during a handover.
func (l *ledger) share() int64 { return l.window / 2 }

// allowance is what a stream may have under way now, if others have what other says.
func (l *ledger) allowance(other int64) int64 {
	return max(0, min(l.share(), l.window-l.queued-max(0, other)))
}

// grant returns how many bytes to give a stream that has left bytes under way (negative after a record larger
// than its credit). Small amounts are saved up, also for a stream that has nothing left: a Credit frame should be
// worth sending, and a node that reads the log again for a stream wants to send it more than one record. It comes
// to that: what others may have under way leaves a share to each once the outbox is empty.
func (l *ledger) grant(left, other int64) int64 {
	if give := l.allowance(other) - left; give > 0 && give >= l.share()/2 {
		return give
	}
	return 0
}
