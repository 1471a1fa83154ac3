package runner

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// limiter bounds bytes per second. What was read is charged afterwards, when its size is known: the balance
// may go negative, and the next reader waits until it is paid.
type limiter struct {
	rate   float64      // bytes per second; 0 for no bound
	waited atomic.Int64 // nanoseconds, of all readers together

	mu      sync.Mutex
	balance float64   // guarded by mu
	at      time.Time // guarded by mu
}

func newLimiter(rate int64) *limiter {
	return &limiter{rate: float64(rate), balance: float64(rate) / 10, at: time.Now()}
}

// wait returns when something may be read, or when ctx ends.
func (l *limiter) wait(ctx context.Context) {
	for {
		begun := time.Now()
		d := l.delay(begun)
		if d <= 0 {
			return
		}
		t := time.NewTimer(d)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return
		}
		l.waited.Add(int64(time.Since(begun)))
	}
}

// delay is how long to wait until the balance is positive. At most a tenth of a second's worth is saved up, so
// that a quiet spell does not buy a burst that delays live reads.
func (l *limiter) delay(now time.Time) time.Duration {
	if l.rate <= 0 {
		return 0
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.balance = min(l.balance+now.Sub(l.at).Seconds()*l.rate, l.rate/10)
	l.at = now
	if l.balance > 0 {
		return 0
	}
	return max(time.Duration(-l.balance/l.rate*float64(time.Second)), time.Millisecond)
}

func (l *limiter) spend(n int) {
	l.mu.Lock()
	l.balance -= float64(n)
	l.mu.Unlock()
}
