package lean

import (
	"context"
	"fmt"
	"net"
	"net/rpc"
	"sync"
	"time"
)

// Serve is a worker process: it dials the parent and does what it asks until the parent goes or ctx ends.
func Serve(ctx context.Context, parent string) error {
	raiseLimit()
	conn, err := (&net.Dialer{Timeout: 10 * time.Second}).DialContext(ctx, "tcp", parent)
	if err != nil {
		return fmt.Errorf("dial the benchmark: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	l, err := newLoop()
	if err != nil {
		return err
	}
	var wg sync.WaitGroup
	wg.Go(l.run)
	s := rpc.NewServer()
	if err := s.RegisterName("Load", &Load{loop: l}); err != nil {
		return fmt.Errorf("serve a benchmark: %w", err)
	}
	s.ServeConn(conn)
	l.stop()
	wg.Wait()
	return nil
}

// Load is what the parent calls.
type Load struct{ loop *loop }

const glance = 2 * time.Millisecond // how often a call looks whether what it waits for has come

// Join connects clients.
func (s *Load) Join(j Join, out *Joined) error {
	l := s.loop
	addrs, err := resolve(j)
	if err != nil {
		return err
	}
	l.mu.Lock()
	l.join, l.addrs, l.begun, l.todo, l.making = j, addrs, 0, len(j.Keys), 0
	l.joined = Joined{}
	l.startLocked()
	l.mu.Unlock()
	deadline := time.Now().Add(j.Within)
	for {
		l.mu.Lock()
		done := l.todo == 0 && l.making == 0
		*out = l.joined
		fault := l.faultLocked()
		l.mu.Unlock()
		switch {
		case done && out.Connected == len(j.Keys):
			return nil
		case done:
			return fmt.Errorf("%d of %d clients connected: %s", out.Connected, len(j.Keys), fault)
		case time.Now().After(deadline):
			return fmt.Errorf("%d of %d clients connected within %s: %s", out.Connected, len(j.Keys), j.Within, fault)
		}
		time.Sleep(glance)
	}
}

// Arm begins an epoch.
func (s *Load) Arm(epoch int64, _ *Seen) error {
	l := s.loop
	l.mu.Lock()
	defer l.mu.Unlock()
	l.epoch = epoch
	for _, c := range l.clients {
		c.next = 0
	}
	l.lookLocked()
	l.paused = true
	return l.watchSlowLocked()
}

// Look returns what came since the last look.
func (s *Load) Look(_ bool, out *Seen) error {
	l := s.loop
	l.mu.Lock()
	defer l.mu.Unlock()
	*out = l.lookLocked()
	return nil
}

// Await returns when all that is due has come.
func (s *Load) Await(d Due, out *Seen) error {
	l := s.loop
	if d.Slow {
		l.mu.Lock()
		l.paused = false
		err := l.watchSlowLocked()
		l.mu.Unlock()
		if err != nil {
			return err
		}
	}
	deadline := time.Now().Add(d.Within)
	for {
		l.mu.Lock()
		late := l.lackingLocked(d)
		if late == 0 || time.Now().After(deadline) {
			if late > 0 {
				l.blameLocked(d)
			}
			*out = l.lookLocked()
			l.mu.Unlock()
			return nil
		}
		l.mu.Unlock()
		time.Sleep(glance)
	}
}
