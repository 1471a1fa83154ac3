// Package limits bounds what clients together, one address and one client key may take of a router: connections,
// handshakes, descriptors and memory. It decides and counts; the edge answers requests and the hub closes sockets.
//
// Nothing here has a goroutine or a timer per client. What is remembered of an address or a key is forgotten with its
// last client; when addresses may knock again is remembered for seconds, of a bounded number of them.
package limits

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
)

// Limit names a limit, in metrics and logs.
type Limit string

// The limits, by what they hold.
const (
	Clients       Limit = "clients"            // all clients
	Address       Limit = "address_clients"    // clients of one address
	Key           Limit = "key_clients"        // sockets of one client key
	Replaced      Limit = "key_replaced"       // sockets closed because their key connected again
	Keys          Limit = "keys"               // keys of one socket
	Rate          Limit = "handshakes"         // handshakes per second
	AddressRate   Limit = "address_handshakes" // handshakes per second of one address
	Open          Limit = "open_handshakes"    // connections that have not sent a request yet
	Busy          Limit = "open_requests"      // connections whose request is being answered
	AddressBusy   Limit = "address_requests"   // the same of one address
	SecureRate    Limit = "tls_handshakes"     // TLS handshakes per second, of all or of one address
	HandshakeTime Limit = "handshake_time"     // how long a request may take
	Head          Limit = "head_size"          // size of a request's head
	MessageSize   Limit = "message_size"       // size of a client's message
	Messages      Limit = "messages"           // a client's messages per second
	Memory        Limit = "memory"             // requests refused while memory is short
	Shed          Limit = "shed"               // clients given up because memory is short
	Files         Limit = "files"              // connections that no descriptor was left for
)

// All lists the limits, so that metrics begin with a zero for each.
func All() []Limit {
	return []Limit{Clients, Address, Key, Replaced, Keys, Rate, AddressRate, Open, Busy, AddressBusy, SecureRate, HandshakeTime, Head, MessageSize, Messages, Memory, Shed, Files}
}

// Policy says what happens when a key has more sockets than it may.
type Policy string

// The policies.
const (
	FanOut Policy = "fan-out" // every socket gets every record; one too many is refused
	Newest Policy = "newest"  // the oldest one is closed
	Oldest Policy = "oldest"  // the new one is refused; one socket where no number is given
)

// Config is fixed for a gate's life. A number of 0 is no limit.
type Config struct {
	Clients    int    // at a time
	PerAddress int    // likewise, of one address; IPv6 by /64
	PerKey     int    // likewise, of one client key
	Policy     Policy // beyond PerKey
	Rate       int    // handshakes per second
	PerRate    int    // likewise, of one address
	Queue      int    // handshakes that may wait for their turn
	// ByFiles says that Clients is what the limit of open files leaves.
	ByFiles bool

	Logger *zap.Logger
	Count  func(Limit) // of every refusal; nil counts nothing
}

// Refused is the answer to who meets a limit.
type Refused struct {
	Limit  Limit
	Retry  time.Duration
	Reason string // one line for the client
	Own    bool   // it is about this address or key, not about the router
}

func (r *Refused) Error() string { return r.Reason }

const (
	// sayEvery is how often the log names a limit that refuses.
	sayEvery = time.Minute
	// maxAddresses bounds the addresses whose handshakes are timed apart; those beyond it share one rate.
	maxAddresses = 1 << 16
	// burst is how many handshakes may come at once without waiting, as a part of a second's.
	burst = 100 * time.Millisecond
	// slice is how far apart those that wait are let go on, many at a time.
	slice = 10 * time.Millisecond
	// soon is when to come back to a router that is full: some will have gone by then.
	soon = 5 * time.Second
)

// Gate counts clients and lets them in or not.
type Gate struct {
	cfg   Config
	begun time.Time
	short atomic.Bool // of memory

	waiting atomic.Int64 // handshakes in the queue

	mu        sync.Mutex
	clients   int                 // guarded by mu
	addresses map[netip.Addr]int  // guarded by mu; clients
	keys      map[string][]*Place // guarded by mu; clients, the oldest first
	requests  pace                // guarded by mu
	secure    pace                // guarded by mu; of TLS
	said      map[Limit]time.Time // guarded by mu
}

// pace is when the next of its kind have their turn.
type pace struct {
	next      time.Time                // of all
	now, last map[netip.Addr]time.Time // of an address
	opened    time.Time                // when now was begun
}

// NewGate returns a gate that nobody has passed.
func NewGate(cfg Config) *Gate {
	if cfg.Logger == nil {
		cfg.Logger = zap.NewNop()
	}
	if cfg.Count == nil {
		cfg.Count = func(Limit) {}
	}
	if cfg.Policy == "" {
		cfg.Policy = FanOut
	}
	if cfg.Policy != FanOut && cfg.PerKey <= 0 {
		cfg.PerKey = 1
	}
	return &Gate{
		cfg: cfg, begun: time.Now(), addresses: map[netip.Addr]int{}, keys: map[string][]*Place{},
		requests: pace{now: map[netip.Addr]time.Time{}}, secure: pace{now: map[netip.Addr]time.Time{}}, said: map[Limit]time.Time{},
	}
}

// Network is what is counted as one address: an IPv4 address, or the /64 of an IPv6 address, which one customer has
// to choose from as they like.
func Network(a netip.Addr) netip.Addr {
	a = a.Unmap().WithZone("")
	if a.Is6() {
		if p, err := a.Prefix(64); err == nil {
			return p.Addr()
		}
	}
	return a
}

// Short says whether memory is short; while it is nobody new comes in.
func (g *Gate) Short(short bool) { g.short.Store(short) }

// IsShort reports whether memory is short.
func (g *Gate) IsShort() bool { return g.short.Load() }

// Waiting is how many handshakes wait for their turn.
func (g *Gate) Waiting() int64 { return g.waiting.Load() }

// Clients is how many have a place, and Addresses of how many addresses they are.
func (g *Gate) Clients() (clients, addresses int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.clients, len(g.addresses)
}

// Replaces reports whether a client may be closed because its key connects again.
func (g *Gate) Replaces() bool { return g.cfg.Policy == Newest }

// Patience is how long a request may wait for its turns.
func (g *Gate) Patience() time.Duration { return 2 * g.patience() }

// Knock is called for every request, before anything is looked at: it returns when it is this request's turn.
func (g *Gate) Knock(ctx context.Context, from netip.Addr) error {
	if g.short.Load() {
		return g.refuse(Memory, Refused{Retry: later(soon), Reason: "this router is short of memory; connect again in a moment"})
	}
	// First the turn among those of the address, then that among all: what an address has waiting does not stand in
	// the way of others.
	for _, turn := range []func(time.Time) (time.Duration, *Refused){
		func(now time.Time) (time.Duration, *Refused) { return g.turnOf(&g.requests, now, Network(from)) },
		func(now time.Time) (time.Duration, *Refused) { return g.turn(&g.requests, now) },
	} {
		now := time.Now()
		wait, refused := turn(now)
		if refused != nil {
			return g.refuse(refused.Limit, *refused)
		}
		if err := g.wait(ctx, g.together(now, wait)); err != nil {
			return err
		}
	}
	return nil
}

// together puts a wait off to the end of its slice of time: a process that wakes for every one of those that wait, and
// goes back to sleep, uses a third more for each.
func (g *Gate) together(now time.Time, wait time.Duration) time.Duration {
	if wait <= 0 {
		return wait
	}
	due := now.Sub(g.begun) + wait
	return due.Truncate(slice) + slice - now.Sub(g.begun)
}

func (g *Gate) wait(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return nil
	}
	g.waiting.Add(1)
	defer g.waiting.Add(-1)
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// turnOf gives a handshake its turn among those of its address, or refuses it. Those that are refused take no turn, or
// a flood would shut itself and its neighbours out for good.
func (g *Gate) turnOf(p *pace, now time.Time, from netip.Addr) (wait time.Duration, refused *Refused) {
	if g.cfg.PerRate <= 0 {
		return 0, nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	at := latest(g.nextOfLocked(p, now, &from), now.Add(-burst))
	if wait = at.Sub(now); wait > g.patience() {
		return 0, &Refused{Limit: AddressRate, Own: true, Retry: later(wait), Reason: "too many connections a second from this address; connect again in a moment"}
	}
	p.now[from] = at.Add(time.Second / time.Duration(g.cfg.PerRate))
	return wait, nil
}

// turn is the same among all handshakes.
func (g *Gate) turn(p *pace, now time.Time) (wait time.Duration, refused *Refused) {
	if g.cfg.Rate <= 0 {
		return 0, nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	at := latest(p.next, now.Add(-burst))
	if wait = at.Sub(now); wait > g.patience() {
		return 0, &Refused{Limit: Rate, Retry: later(wait), Reason: "too many clients connect to this router at once; connect again in a moment"}
	}
	p.next = at.Add(time.Second / time.Duration(g.cfg.Rate))
	return wait, nil
}

// secureTurn is asked before a TLS handshake, which costs more than what follows it: as many may come at once as may
// wait for their turn, and those beyond are refused without a word. from is not valid where connections of many
// addresses come through one.
func (g *Gate) secureTurn(from netip.Addr) *Refused {
	now := time.Now()
	if from.IsValid() {
		if _, refused := g.turnOf(&g.secure, now, from); refused != nil {
			return &Refused{Limit: SecureRate}
		}
	}
	if _, refused := g.turn(&g.secure, now); refused != nil {
		return &Refused{Limit: SecureRate}
	}
	return nil
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// patience is how long a handshake may wait for its turn: as long as the queue is.
func (g *Gate) patience() time.Duration {
	if g.cfg.Rate <= 0 {
		return time.Second
	}
	return time.Second * time.Duration(g.cfg.Queue) / time.Duration(g.cfg.Rate)
}

// nextOfLocked is when an address has its next turn. Addresses are kept in two generations: what is not asked for in
// a whole one is past anyway. An address too many is made the one that all those share.
func (g *Gate) nextOfLocked(p *pace, now time.Time, from *netip.Addr) time.Time {
	life := g.patience() + time.Second
	switch age := now.Sub(p.opened); {
	case age >= 2*life:
		p.now, p.last, p.opened = map[netip.Addr]time.Time{}, nil, now
	case age >= life:
		p.now, p.last, p.opened = map[netip.Addr]time.Time{}, p.now, now
	}
	at, known := p.now[*from]
	if !known && len(p.now) >= maxAddresses {
		*from = netip.Addr{}
		at, known = p.now[*from]
	}
	if !known {
		at = p.last[*from]
	}
	return at
}

// Place is one client's place at a router. Its methods are the client's goroutine's.
type Place struct {
	g    *Gate
	from netip.Addr

	// Guarded by g.mu.
	keys  []string
	evict func() // closes the client
	gone  bool   // it is to be closed, or has left
}

// Enter gives a client a place, which Leave gives back. keys are its client keys, each of which counts a socket.
func (g *Gate) Enter(from netip.Addr, keys ...[]byte) (*Place, error) {
	p := &Place{g: g, from: Network(from)}
	refused, evict := g.enter(p, keys)
	if refused != nil {
		return nil, g.refuse(refused.Limit, *refused)
	}
	g.replace(evict)
	return p, nil
}

func (g *Gate) enter(p *Place, keys [][]byte) (refused *Refused, evict []*Place) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.cfg.Clients > 0 && g.clients >= g.cfg.Clients {
		return &Refused{Limit: Clients, Retry: later(soon), Reason: "this router has as many clients as it may; connect to another one, or again in a moment"}, nil
	}
	if g.cfg.PerAddress > 0 && g.addresses[p.from] >= g.cfg.PerAddress {
		return &Refused{Limit: Address, Own: true, Retry: later(soon), Reason: "this address has as many clients here as one may"}, nil
	}
	for i, key := range keys {
		r, e := g.joinLocked(p, string(key))
		if r != nil {
			g.partLocked(p, keys[:i])
			return r, nil
		}
		evict = append(evict, e...)
	}
	g.clients++
	g.addresses[p.from]++
	return nil, evict
}

// joinLocked counts a socket of a key. evict are those that are to be closed for it.
func (g *Gate) joinLocked(p *Place, key string) (refused *Refused, evict []*Place) {
	if g.cfg.PerKey <= 0 {
		return nil, nil // nothing is remembered that nothing is decided by
	}
	have := g.keys[key]
	if len(have) >= g.cfg.PerKey {
		if g.cfg.Policy != Newest {
			return &Refused{Limit: Key, Own: true, Retry: later(soon), Reason: "this client key is connected as often as it may be"}, nil
		}
		evict = append(evict, have[:len(have)-g.cfg.PerKey+1]...)
		have = append([]*Place(nil), have[len(have)-g.cfg.PerKey+1:]...)
	}
	g.keys[key] = append(have, p)
	p.keys = append(p.keys, key)
	return nil, evict
}

// partLocked takes a place off keys that it joined.
func (g *Gate) partLocked(p *Place, keys [][]byte) {
	for _, key := range keys {
		g.forgetLocked(p, string(key))
	}
}

// forgetLocked takes a place off a key; one that was replaced is not there any more.
func (g *Gate) forgetLocked(p *Place, key string) {
	have := g.keys[key]
	for i, o := range have {
		if o == p {
			have = append(have[:i:i], have[i+1:]...)
			break
		}
	}
	if len(have) == 0 {
		delete(g.keys, key)
		return
	}
	g.keys[key] = have
}

// replace closes sockets whose key connected again.
func (g *Gate) replace(places []*Place) {
	for _, p := range places {
		g.mu.Lock()
		evict := p.evict
		again := p.gone
		p.gone = true
		g.mu.Unlock()
		if again {
			continue
		}
		g.cfg.Count(Replaced)
		if evict != nil {
			evict()
		}
	}
}

// Join counts one more key of a client, as it is added on its open socket.
func (p *Place) Join(key []byte) error {
	p.g.mu.Lock()
	refused, evict := p.g.joinLocked(p, string(key))
	p.g.mu.Unlock()
	if refused != nil {
		return p.g.refuse(refused.Limit, *refused)
	}
	p.g.replace(evict)
	return nil
}

// Part takes a key of a client away again.
func (p *Place) Part(key []byte) {
	p.g.mu.Lock()
	defer p.g.mu.Unlock()
	for i, k := range p.keys {
		if k == string(key) {
			p.keys = append(p.keys[:i:i], p.keys[i+1:]...)
			p.g.forgetLocked(p, k)
			return
		}
	}
}

// Bind says how the client is closed if its key connects again; false when that happened already.
func (p *Place) Bind(evict func()) bool {
	p.g.mu.Lock()
	defer p.g.mu.Unlock()
	p.evict = evict
	return !p.gone
}

// Leave gives the place back, once.
func (p *Place) Leave() {
	g := p.g
	g.mu.Lock()
	defer g.mu.Unlock()
	g.clients--
	if g.addresses[p.from]--; g.addresses[p.from] <= 0 {
		delete(g.addresses, p.from)
	}
	for _, k := range p.keys {
		g.forgetLocked(p, k)
	}
	p.keys, p.evict, p.gone = nil, nil, true
}

// Note counts something that a limit ended elsewhere.
func (g *Gate) Note(l Limit) {
	g.cfg.Count(l)
	g.say(l)
}

func (g *Gate) refuse(l Limit, r Refused) error {
	r.Limit = l
	g.Note(l)
	return &r
}

// say tells the operator which limit holds, and what to do about it.
func (g *Gate) say(l Limit) {
	now := time.Now()
	g.mu.Lock()
	quiet := now.Sub(g.said[l]) < sayEvery
	if !quiet {
		g.said[l] = now
	}
	g.mu.Unlock()
	if quiet {
		return
	}
	if remedy := g.remedy(l); remedy != "" {
		g.cfg.Logger.Warn("limit reached", zap.String("limit", string(l)), zap.String("remedy", remedy))
	}
}

func (g *Gate) remedy(l Limit) string {
	switch l { //nolint:exhaustive // the others are nothing an operator has to know of
	case Clients:
		if g.cfg.ByFiles {
			return fmt.Sprintf("the limit of open files leaves room for %d clients; raise it (ulimit -n, LimitNOFILE= of systemd, ulimits of containers) or add routers", g.cfg.Clients)
		}
		return fmt.Sprintf("raise --max-clients (%d) or add routers", g.cfg.Clients)
	case Address:
		return fmt.Sprintf("raise --max-clients-per-address (%d); if clients come through a proxy, name it in --trusted-proxies", g.cfg.PerAddress)
	case AddressRate:
		return fmt.Sprintf("raise --handshake-rate-per-address (%d); if clients come through a proxy, name it in --trusted-proxies", g.cfg.PerRate)
	case Rate:
		return fmt.Sprintf("raise --handshake-rate (%d a second) or add routers", g.cfg.Rate)
	case Memory, Shed:
		return "raise --memory-limit, lower --client-window, or add routers"
	case SecureRate:
		return fmt.Sprintf("raise --handshake-rate (%d a second) or --handshake-rate-per-address (%d); if clients come through a proxy, name it in --trusted-proxies", g.cfg.Rate, g.cfg.PerRate)
	case Busy, AddressBusy:
		return "clients do not read their answers, or many come at once; raise --handshake-queue and the limit of open files if they are honest"
	case Open:
		return "connections that send no request take the places of others; raise --max-handshakes if they are honest"
	}
	return ""
}

// later is when to come back: about d from now, spread so that those who are refused together do not return together.
func later(d time.Duration) time.Duration {
	d = max(d, time.Second)
	return d + rand.N(d)
}
