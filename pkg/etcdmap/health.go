package etcdmap

import (
	"errors"
	"sync"
	"time"

	"go.uber.org/zap"
)

// remindEvery is how often a lasting outage is logged again.
const remindEvery = time.Minute

// aspect is a kind of use of etcd. Reading may work while writing does not (no space, no permission), so each has its
// own state; otherwise one working probe a second would announce a recovery every second.
type aspect int

const (
	reading aspect = iota
	writing
	leasing // keeping a lease that was granted
	aspects
)

func (a aspect) String() string {
	switch a {
	case reading:
		return "reading"
	case writing:
		return "writing"
	default:
		return "leasing"
	}
}

// errNotYet is the health of a map that etcd has not answered yet.
var errNotYet = errors.New("etcd has not answered yet")

// health turns the results of single requests into what an operator should know: one warning when etcd is away,
// a reminder now and then, one message when it is back.
type health struct {
	log *zap.Logger

	mu       sync.Mutex
	answered bool      // etcd has answered at least once
	since    time.Time // start of the present state
	reminded time.Time
	faults   [aspects]error
	lastOK   [aspects]time.Time
	outages  uint64
	failures uint64
}

func newHealth(log *zap.Logger, now time.Time) *health {
	return &health{log: log, since: now}
}

// ok notes that a request was answered.
func (h *health) ok(a aspect) {
	now := time.Now()
	h.mu.Lock()
	wasBad := h.errLocked() != nil
	first := !h.answered
	h.answered = true
	h.faults[a] = nil
	h.lastOK[a] = now
	healed := wasBad && h.errLocked() == nil
	away, warned := now.Sub(h.since), !h.reminded.IsZero()
	if healed {
		h.since, h.reminded = now, time.Time{}
	}
	h.mu.Unlock()
	// A start with a healthy etcd is nothing to report.
	if healed && (!first || warned) {
		h.log.Info("etcd can be used again", zap.Duration("away", away))
	}
}

// fail notes that a request begun at started failed. A failure older than the last success says nothing about now.
func (h *health) fail(a aspect, started time.Time, err error) {
	now := time.Now()
	h.mu.Lock()
	h.failures++
	if started.Before(h.lastOK[a]) {
		h.mu.Unlock()
		return
	}
	if h.answered && h.errLocked() == nil {
		h.since = now
		h.outages++
	}
	h.faults[a] = err
	first := h.reminded.IsZero()
	due := first || now.Sub(h.reminded) >= remindEvery
	if due {
		h.reminded = now
	}
	answered, away := h.answered, now.Sub(h.since)
	h.mu.Unlock()
	if !due {
		return
	}
	fields := []zap.Field{zap.Stringer("aspect", a), zap.Error(err)}
	if !first {
		fields = append(fields, zap.Duration("away", away))
	}
	switch {
	case !answered:
		h.log.Warn("etcd cannot be used yet, waiting for it", fields...)
	case first:
		h.log.Warn("etcd cannot be used, what is known stays in force", fields...)
	default:
		h.log.Warn("etcd still cannot be used, what is known stays in force", fields...)
	}
}

func (h *health) errLocked() error {
	for _, err := range h.faults {
		if err != nil {
			return err
		}
	}
	if !h.answered {
		return errNotYet
	}
	return nil
}

// state returns the present fault, if any, and since when.
func (h *health) state() (since time.Time, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.since, h.errLocked()
}

func (h *health) totals() (outages, failures uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.outages, h.failures
}

// notices logs what several followers of one map find out at about the same time once.
type notices struct {
	log *zap.Logger

	mu   sync.Mutex
	last map[string]time.Time // by message: a few constants
}

const noticeEvery = 5 * time.Second

func newNotices(log *zap.Logger) *notices { return &notices{log: log, last: map[string]time.Time{}} }

func (n *notices) due(message string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	now := time.Now()
	if last, ok := n.last[message]; ok && now.Sub(last) < noticeEvery {
		return false
	}
	n.last[message] = now
	return true
}

func (n *notices) info(message string, fields ...zap.Field) {
	if n.due(message) {
		n.log.Info(message, fields...)
	}
}

func (n *notices) warn(message string, fields ...zap.Field) {
	if n.due(message) {
		n.log.Warn(message, fields...)
	}
}
