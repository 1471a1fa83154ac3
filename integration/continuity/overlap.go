package continuity

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// crowded is how many faults are under way at once at most.
const crowded = 4

// resources keeps faults apart that would stand in each other's way: two that meet the same node, say.
type resources struct {
	mu   sync.Mutex
	held map[string]bool // guarded by mu
}

func (r *resources) free(name string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return !r.held[name]
}

// take holds all names, or none and is false.
func (r *resources) take(names ...string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, n := range names {
		if r.held[n] {
			return false
		}
	}
	for _, n := range names {
		r.held[n] = true
	}
	return true
}

func (r *resources) give(names ...string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, n := range names {
		delete(r.held, n)
	}
}

// needs is what a fault has for itself. A rolling restart takes its nodes one by one.
func (f *Fault) needs() []string {
	switch f.Kind { //nolint:exhaustive // the others need what they meet
	case EtcdKill, EtcdFreeze, EtcdWipe, EtcdOutage:
		return []string{"etcd"}
	case Kafka:
		return []string{"kafka"}
	case GroupEmpty, GroupDelete:
		return []string{"group"}
	case Rolling, Join:
		return []string{string(f.Kind)}
	}
	return []string{f.Victim}
}

// storm makes faults without waiting for the healing of those before, and waits for it at the end.
func (r *Run) storm(ctx context.Context, end time.Time) error {
	var acts sync.WaitGroup
	places := make(chan struct{}, crowded)
	for ctx.Err() == nil {
		d := r.plan.Next()
		if !pause(ctx, d.Wait) {
			break
		}
		select {
		case places <- struct{}{}:
		case <-ctx.Done():
		}
		if ctx.Err() != nil || time.Now().Add(d.Lasts).After(end) {
			break
		}
		f := &Fault{Draw: d}
		if !r.choose(f) || !r.busy.take(f.needs()...) {
			<-places
			continue
		}
		f.Began = time.Now()
		r.add(f)
		acts.Go(func() {
			defer func() { <-places }()
			defer r.busy.give(f.needs()...)
			err := r.act(ctx, f)
			r.over(f, err)
		})
	}
	acts.Wait()
	if ctx.Err() != nil {
		return nil
	}
	healing, cancel := context.WithTimeoutCause(ctx, 3*time.Minute, errors.New("not within 3 minutes"))
	defer cancel()
	last := time.Now()
	if err := r.crowd.settled(healing, last); err != nil {
		return fmt.Errorf("after the last fault: %w", err)
	}
	if _, err := r.owned(healing); err != nil {
		return fmt.Errorf("after the last fault: %w", err)
	}
	r.logf("healed %s after the last fault", short(time.Since(last)))
	return nil
}

// over notes the end of a fault that overlaps with others.
func (r *Run) over(f *Fault, err error) {
	r.mu.Lock()
	f.Ended = time.Now()
	if err != nil {
		f.Error = err.Error()
	}
	r.mu.Unlock()
	n, _ := r.crowd.behind(f.Ended.Add(-5 * time.Second))
	said := ""
	if err != nil {
		said = ": " + err.Error()
	}
	r.logf("%4.0fs  %2d %-13s %-10s lasted %6s; %d clients have nothing newer than 5 s%s", f.Began.Sub(r.began).Seconds(), f.N, f.Kind, f.Victim, short(f.Ended.Sub(f.Began)), n, said)
}
