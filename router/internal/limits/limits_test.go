package limits

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func addr(t *testing.T, s string) netip.Addr {
	t.Helper()
	a, err := netip.ParseAddr(s)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// refusal is the limit that an error names.
func refusal(t *testing.T, err error) *Refused {
	t.Helper()
	r := new(Refused)
	if !errors.As(err, &r) {
		t.Fatalf("got %v, want a refusal", err)
	}
	if r.Retry < time.Second {
		t.Errorf("%s: come back after %v", r.Limit, r.Retry)
	}
	return r
}

func TestPlacesAreLimitedInAllPerAddressAndPerKey(t *testing.T) {
	counted := map[Limit]int{}
	g := NewGate(Config{Clients: 4, PerAddress: 2, PerKey: 2, Count: func(l Limit) { counted[l]++ }})
	enter := func(from, key string) (*Place, error) { return g.Enter(addr(t, from), []byte(key)) }
	var places []*Place
	for _, c := range []struct {
		from, key string
		want      Limit
		own       bool
	}{
		{"10.0.0.1", "a", "", false},
		{"::ffff:10.0.0.1", "b", "", false},
		{"10.0.0.1", "c", Address, true},
		{"2001:db8::1", "a", "", false},
		{"10.0.0.2", "a", Key, true},
		{"2001:db8::ffff", "b", "", false},
		{"2001:db8::2", "c", Clients, false},
	} {
		p, err := enter(c.from, c.key)
		if c.want == "" {
			if err != nil {
				t.Fatalf("%s %s: %v", c.from, c.key, err)
			}
			places = append(places, p)
			continue
		}
		if r := refusal(t, err); r.Limit != c.want || r.Own != c.own {
			t.Errorf("%s %s: %s, own %v; want %s, own %v", c.from, c.key, r.Limit, r.Own, c.want, c.own)
		}
	}
	if counted[Address] != 1 || counted[Key] != 1 || counted[Clients] != 1 {
		t.Errorf("counted %v", counted)
	}
	places[3].Leave()
	if _, err := enter("2001:db8:0:0:1::", "c"); err != nil { // the same /64
		t.Errorf("a place that was given back: %v", err)
	}
	if clients, addresses := g.Clients(); clients != 4 || addresses != 2 {
		t.Errorf("%d clients of %d addresses, want 4 of 2", clients, addresses)
	}
}

func TestNothingIsRememberedOfWhoHasLeft(t *testing.T) {
	g := NewGate(Config{PerKey: 10, Policy: Newest})
	for i := range 1000 {
		p, err := g.Enter(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), []byte(fmt.Sprint(i)), []byte("shared"))
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Join([]byte("more")); err != nil {
			t.Fatal(err)
		}
		if i%2 == 0 {
			p.Part([]byte("more"))
			p.Part([]byte("never joined"))
		}
		p.Leave()
	}
	if len(g.addresses)+len(g.keys)+g.clients != 0 {
		t.Errorf("%d addresses, %d keys, %d clients are left", len(g.addresses), len(g.keys), g.clients)
	}
}

func TestNewestSocketOfAKeyWins(t *testing.T) {
	g := NewGate(Config{Policy: Newest})
	closed := map[int]int{}
	var places []*Place
	for i := range 3 {
		p, err := g.Enter(addr(t, "10.0.0.1"), []byte("k"))
		if err != nil {
			t.Fatal(err)
		}
		places = append(places, p)
		if i != 1 && !p.Bind(func() { closed[i]++ }) {
			t.Fatalf("socket %d is replaced before it began", i)
		}
	}
	if closed[0] != 1 || closed[2] != 0 {
		t.Errorf("closed %v, want the first one", closed)
	}
	if places[1].Bind(func() {}) {
		t.Error("the second one, which was replaced while it was upgraded, goes on")
	}
	for _, p := range places {
		p.Leave()
	}
	if len(g.keys) != 0 {
		t.Errorf("keys %v are left", g.keys)
	}
}

func TestOldestSocketOfAKeyWins(t *testing.T) {
	g := NewGate(Config{Policy: Oldest})
	p, err := g.Enter(addr(t, "10.0.0.1"), []byte("other"), []byte("k"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = g.Enter(addr(t, "10.0.0.2"), []byte("mine"), []byte("k"))
	if r := refusal(t, err); r.Limit != Key {
		t.Errorf("refused by %s", r.Limit)
	}
	if _, there := g.keys["mine"]; there {
		t.Error("the key that was counted before the refusal stays counted")
	}
	p.Leave()
	if _, err := g.Enter(addr(t, "10.0.0.2"), []byte("k")); err != nil {
		t.Errorf("after the first one left: %v", err)
	}
}

func TestHandshakesWaitForTheirTurnInABoundedQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewGate(Config{Rate: 100, Queue: 50})
		begun := time.Now()
		results := make(chan error, 200)
		for range 200 {
			go func() { results <- g.Knock(t.Context(), addr(t, "10.0.0.1")) }()
		}
		synctest.Wait()
		if n := g.Waiting(); n < 45 || n > 51 {
			t.Errorf("%d wait, want about 50", n)
		}
		in := 0
		for range 200 {
			if err := <-results; err == nil {
				in++
			} else if r := refusal(t, err); r.Limit != Rate || r.Own {
				t.Errorf("refused by %s", r.Limit)
			}
		}
		// 10 at once, as many as the queue holds later.
		if in < 59 || in > 62 {
			t.Errorf("%d came in, want about 60", in)
		}
		if took := time.Since(begun); took < 450*time.Millisecond || took > 600*time.Millisecond {
			t.Errorf("the last one had its turn after %v, want half a second", took)
		}
	})
}

// Those that wait go on many at a time, so that the process does not wake for each, and at the rate all the same.
func TestThoseThatWaitGoOnTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const rate, clients = 1000, 600
		g := NewGate(Config{Rate: rate, Queue: 1000})
		begun := time.Now()
		turns := make(chan time.Duration, clients)
		for range clients {
			go func() {
				if err := g.Knock(t.Context(), addr(t, "10.0.0.1")); err != nil {
					t.Error(err)
				}
				turns <- time.Since(begun)
			}()
		}
		at := map[time.Duration]int{}
		for range clients {
			at[<-turns]++
		}
		const slices = int((clients*time.Second/rate - burst) / slice)
		if len(at) < slices || len(at) > slices+2 {
			t.Errorf("woken %d times, want %d", len(at), slices)
		}
		for when, n := range at {
			if when == 0 {
				continue // the burst
			}
			if most := rate * int(slice) / int(time.Second); when%slice != 0 || n > most {
				t.Errorf("%d went on after %v, want at most %d at a multiple of %v", n, when, most, slice)
			}
		}
	})
}

func TestAFloodOfOneAddressLeavesRoomForOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewGate(Config{Rate: 1000, PerRate: 750, Queue: 1000})
		flood, honest := addr(t, "10.0.0.1"), addr(t, "10.0.0.2")
		var admitted, refused atomic.Int64
		mine := 0
		for range 5000 { // five seconds of a flood of 10,000 per second
			for range 10 {
				go func() {
					if g.Knock(t.Context(), flood) == nil {
						admitted.Add(1)
					} else {
						refused.Add(1)
					}
				}()
			}
			if time.Now().UnixMilli()%10 == 0 {
				begun := time.Now()
				if err := g.Knock(t.Context(), honest); err != nil {
					t.Fatalf("an honest client is refused: %v", err)
				}
				if time.Since(begun) > 100*time.Millisecond {
					mine++
				}
			}
			tick(time.Millisecond)
		}
		tick(2 * time.Second)
		if in, out := admitted.Load(), refused.Load(); in < 4000 || in > 4800 || out < 40000 {
			t.Errorf("%d of the flood came in, %d were refused; want about 4,600 and the rest", in, out)
		}
		if mine > 0 {
			t.Errorf("%d honest handshakes had to wait long", mine)
		}
	})
}

// tick lets a bubble's time pass.
func tick(d time.Duration) { <-time.After(d) }

func TestAddressesThatKnockAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewGate(Config{Rate: 1 << 20, PerRate: 10, Queue: 1 << 20})
		for i := range 3 * maxAddresses {
			_, _ = g.turnOf(&g.requests, time.Now(), netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}))
		}
		if n := len(g.requests.now) + len(g.requests.last); n > 2*maxAddresses+1 {
			t.Errorf("%d addresses are remembered", n)
		}
		tick(time.Minute)
		_, _ = g.turnOf(&g.requests, time.Now(), addr(t, "10.0.0.1"))
		if n := len(g.requests.now) + len(g.requests.last); n != 1 {
			t.Errorf("%d addresses are remembered after a minute, want one", n)
		}
	})
}

func TestWhoGoesAwayWhileWaitingIsNotWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewGate(Config{Rate: 1, Queue: 100})
		ctx, cancel := context.WithCancel(t.Context())
		if err := g.Knock(ctx, netip.Addr{}); err != nil {
			t.Fatal(err)
		}
		done := make(chan error)
		go func() { done <- g.Knock(ctx, netip.Addr{}) }()
		synctest.Wait()
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		if g.Waiting() != 0 {
			t.Error("it still waits")
		}
	})
}

func TestNobodyComesInWhileMemoryIsShort(t *testing.T) {
	g := NewGate(Config{})
	g.Short(true)
	if r := refusal(t, g.Knock(t.Context(), netip.Addr{})); r.Limit != Memory || r.Own {
		t.Errorf("refused by %s, own %v", r.Limit, r.Own)
	}
	g.Short(false)
	if err := g.Knock(t.Context(), netip.Addr{}); err != nil {
		t.Error(err)
	}
}
