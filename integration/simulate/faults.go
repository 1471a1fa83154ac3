package simulate

import (
	"fmt"
	"slices"

	"github.com/pointsmanhq/pointsman/proto/link"
)

// faults is what goes wrong in a run. Each seed has its own mixture: some kinds never, some often.
type faults struct {
	kinds       []fault
	every       int64
	sourceJumps bool // readers that move to another connection begin somewhere else
	growth      bool // partitions are added
	coincide    bool // more goes wrong while a client is being handed over
}

// fault is one kind of trouble. do reports whether there was an occasion for it.
type fault struct {
	name string
	do   func(w *world) bool
}

// choose draws a run's settings and faults from its seed.
func (w *world) choose() {
	pow := func(lo, hi int64) int64 { // evenly on a logarithmic scale
		v := lo
		for v < hi && w.chance(0.75) {
			v *= 2
		}
		return min(v, hi)
	}
	w.set = settings{
		partitions: int32(1 + w.rng.IntN(3)),
		keys:       2 + w.rng.IntN(4),
		nodes:      2 + w.rng.IntN(3),
		routers:    1 + w.rng.IntN(3),
		clients:    2 + w.rng.IntN(5),
		chaos:      w.between(8*sec, 25*sec),
		window:     pow(16<<10, 128<<10),
		heartbeat:  w.between(2*sec, 5*sec),
		ring:       pow(2<<10, 1<<20),
		scanBytes:  int32(pow(8<<10, 64<<10)),
		linger:     w.between(0, 3*sec),
		linkBuffer: pow(16<<10, 1<<20),
		socket:     pow(1<<10, 1<<17),
		leaseTTL:   w.between(3*sec, 6*sec),
		produce:    w.between(5*ms, 150*ms),
		valueMost:  int(pow(32, 8<<10)),
		latency:    pow(200*us, 20*ms),
	}
	if w.chance(0.5) {
		w.set.several = 1 + w.rng.IntN(2)
		w.set.keys = 2 + w.rng.IntN(mostKeys-2)
		w.set.window = 128 << 10 // of which a key has its part
		w.set.valueMost = min(w.set.valueMost, 1<<10)
	}
	// The larger a part of the window a record takes, the longer it takes to catch up.
	w.set.valueMost = min(w.set.valueMost, int(w.set.window)/pick(w, []int{8, 32, 32, 32}))
	w.set.produce = max(w.set.produce, 4*w.set.latency)
	w.set.linkBuffer = max(w.set.linkBuffer, int64(8*w.set.valueMost))
	if w.chance(0.15) {
		w.set.replayLimit = w.between(5, 200)
	}
	all := kinds()
	for _, f := range all {
		if w.chance(0.5) {
			w.faults.kinds = append(w.faults.kinds, f)
		}
	}
	w.faults.every = w.between(150*ms, 2*sec)
	if w.chance(0.3) { // a theme: a few kinds, often
		w.faults.kinds = w.faults.kinds[:0]
		themes := [][]string{
			{"retention", "rebalance", "client does not read"},
			{"retention", "rebalance", "client does not read"},
			{"group deleted", "rebalance", "etcd emptied", "node frozen"},
			{"topic recreated", "etcd restored", "node frozen", "router killed"},
			{"link cut", "link reset", "link slow", "client does not read"},
		}
		theme := pick(w, themes)
		for _, f := range all {
			if slices.Contains(theme, f.name) {
				w.faults.kinds = append(w.faults.kinds, f)
			}
		}
		w.faults.every = w.between(100*ms, 500*ms)
	}
	w.faults.sourceJumps = w.chance(0.3)
	w.faults.coincide = w.chance(0.5)
	w.faults.growth = w.chance(0.35)
	w.set.quiet = w.chance(0.5)
	w.set.stale = w.between(0, staleMost)
}

// begin sets the scene.
func (w *world) begin() {
	w.choose()
	w.note(anyone, anywhere, "SETTINGS %+v", w.set)
	w.net = network{w: w, cuts: map[way]int{}, slow: map[way]int64{}}
	w.kafka.w, w.etcd.w, w.group.w = w, w, w
	w.kafka.create(w.set.partitions)
	w.etcd.begin()
	w.group.begin()
	for i := range w.set.nodes {
		w.machines = append(w.machines, &machine{w: w, place: fmt.Sprintf("n%d", i+1)})
		if i < 2 || w.chance(0.6) {
			w.machines[i].start()
		}
	}
	for i := range w.set.routers {
		w.routers = append(w.routers, &routerProc{place: fmt.Sprintf("r%d", i+1)})
		w.startRouter(i)
	}
	for range w.set.clients {
		w.after(w.between(0, 5*sec), w.addClient)
	}
	if w.set.several > 0 {
		for range w.set.several {
			w.after(w.between(0, 5*sec), w.addSeveral)
		}
		w.after(sec, w.changeKeys)
	}
	w.after(w.set.produce, w.produce)
	w.after(w.between(sec, 3*sec), w.trouble)
	w.after(w.set.chaos, w.heal)
	if w.faults.growth {
		w.grows()
	}
}

// changeKeys lets keys come and go on open sockets.
func (w *world) changeKeys() {
	if !w.calm() {
		w.after(w.rare(20*ms, 2*sec), w.changeKeys)
		if len(w.several) > 0 && pick(w, w.several).change() {
			w.stats.Faults["keys change"]++
		}
	}
}

func (w *world) calm() bool { return w.now >= w.set.chaos }

func (w *world) key(i int) string { return fmt.Sprintf("k%d", i) }

// addClient brings a client that begins where it likes.
func (w *world) addClient() {
	c := &client{w: w, id: len(w.clients), key: w.key(w.rng.IntN(w.set.keys))}
	c.name = fmt.Sprintf("c%d", c.id)
	c.proc = &proc{w: w, name: c.name}
	c.wishes()
	if w.chance(0.3) {
		c.pace = w.between(5*ms, 250*ms)
	}
	w.clients = append(w.clients, c)
	w.note(c.id, anywhere, "CLIENT %d key %s, partitions %v, start %d:%d", c.id, c.key, w.kafka.topic.homes(c.key), c.start.Kind, c.start.Value)
	c.run()
}

// wishes chooses where a client without a cursor begins.
func (c *client) wishes() {
	w := c.w
	p := w.kafka.topic.parts[homeOf(c.key, int32(len(w.kafka.topic.parts)))]
	c.has = false
	switch w.rng.IntN(8) {
	case 0:
		c.start = link.Start{Kind: link.StartEarliest}
	case 1:
		c.start = link.Start{Kind: link.StartOffset, Value: w.between(max(0, p.start-5), p.end+5)}
	case 2:
		c.start = link.Start{Kind: link.StartTime, Value: millis(w.between(0, w.now))}
	case 3, 4: // about when it will be connected
		c.start = link.Start{Kind: link.StartTime, Value: millis(w.now + w.between(-100*ms, 500*ms))}
	default:
		c.start = link.Start{Kind: link.StartLatest}
	}
}

// produce appends now and then, in bursts, with and without transactions.
func (w *world) produce() {
	if w.calm() {
		return
	}
	w.after(w.rare(w.set.produce/4, w.set.produce*4), w.produce)
	if w.kafka.deleted {
		return
	}
	n := 1
	if w.chance(0.1) {
		n = 1 + w.rng.IntN(30)
	}
	key := w.key(w.rng.IntN(w.set.keys))
	count := w.count()
	p := w.kafka.topic.parts[homeOf(key, count)]
	if p.away() {
		return
	}
	var t *txn
	if w.chance(0.15) {
		t = p.begin()
		d := w.rare(0, 300*ms)
		if w.chance(0.1) {
			d = w.between(sec, 6*sec) // it hangs
		}
		commit := w.chance(0.6)
		w.after(d, func() {
			if !w.kafka.deleted && p.topic == w.kafka.topic {
				p.finish(t, commit)
			}
		})
	}
	for range n {
		if w.chance(0.5) {
			if other := w.key(w.rng.IntN(w.set.keys)); homeOf(other, count) == p.id {
				key = other
			}
		}
		p.produce(key, w.chance(0.02), t, w.rng.IntN(w.set.valueMost))
	}
	p.advance()
}

// trouble lets something go wrong, again and again.
func (w *world) trouble() {
	if w.calm() {
		return
	}
	w.after(w.rare(w.faults.every/4, w.faults.every*4), w.trouble)
	w.fault()
}

func (w *world) fault() {
	if w.calm() || len(w.faults.kinds) == 0 {
		return
	}
	f := pick(w, w.faults.kinds)
	if f.do(w) {
		w.stats.Faults[f.name]++
	}
}

// coincide lets more go wrong at the moment when a client of a partition is being handed over.
func (w *world) coincide(p *part) {
	if w.calm() || !w.faults.coincide || w.chance(0.5) {
		return
	}
	w.after(w.rare(0, 500*ms), func() {
		if w.calm() || w.chance(0.5) {
			w.fault()
			return
		}
		p.retain(w.between(p.start, p.lso()))
		w.after(w.rare(0, 500*ms), func() { p.retain(p.lso()) })
	})
}

// node is a live node, nil if there is none.
func (w *world) node() *nodeProc {
	var live []*nodeProc
	for _, m := range w.machines {
		if m.cur != nil && !m.cur.proc.dead {
			live = append(live, m.cur)
		}
	}
	if len(live) == 0 {
		return nil
	}
	return pick(w, live)
}

// back starts a machine's next process, unless one runs.
func (m *machine) back(d int64) {
	m.w.after(d, func() {
		if m.cur == nil || m.cur.proc.dead {
			m.start()
		}
	})
}

func (w *world) somePart() *part {
	if w.kafka.deleted {
		return nil
	}
	return pick(w, w.kafka.topic.parts)
}

// kinds lists all faults.
func kinds() []fault {
	return slices.Concat(processFaults(), networkFaults(), kafkaFaults(), etcdFaults(), clientFaults())
}

func onNode(do func(w *world, n *nodeProc)) func(w *world) bool {
	return func(w *world) bool {
		n := w.node()
		if n != nil {
			do(w, n)
		}
		return n != nil
	}
}

func processFaults() []fault {
	return []fault{
		{"node killed", onNode(func(w *world, n *nodeProc) { n.exit(true); n.m.back(w.rare(100*ms, 6*sec)) })},
		{"machine lost", onNode(func(w *world, n *nodeProc) { n.exit(false); n.m.back(w.rare(500*ms, 10*sec)) })},
		{"node drained", onNode(func(w *world, n *nodeProc) { n.proc.do(n.drain); n.m.back(w.between(2*sec, 12*sec)) })},
		{"node frozen", onNode(func(w *world, n *nodeProc) {
			n.proc.freeze()
			w.note(anyone, anywhere, "NODE %s frozen", n.name)
			w.after(w.rare(100*ms, 12*sec), n.proc.thaw)
		})},
		{"node joins", func(w *world) bool {
			for _, m := range w.machines {
				if m.cur == nil || m.cur.proc.dead {
					m.start()
					return true
				}
			}
			return false
		}},
		{"router killed", func(w *world) bool {
			i := w.rng.IntN(len(w.routers))
			r := w.routers[i]
			if r.proc.dead {
				return false
			}
			r.exit(w.chance(0.7))
			w.after(w.rare(100*ms, 4*sec), func() { w.startRouter(i) })
			return true
		}},
		{"router drained", func(w *world) bool {
			i := w.rng.IntN(len(w.routers))
			r := w.routers[i]
			if r.proc.dead || r.draining {
				return false
			}
			r.proc.do(r.drain)
			w.after(w.between(4*sec, 6*sec), func() {
				if w.routers[i] == r {
					r.exit(true)
					w.startRouter(i)
				}
			})
			return true
		}},
		{"router frozen", func(w *world) bool {
			r := pick(w, w.routers)
			if r.proc.dead {
				return false
			}
			w.note(anyone, anywhere, "ROUTER %s frozen", r.name)
			r.proc.freeze()
			w.after(w.rare(100*ms, 8*sec), r.proc.thaw)
			return true
		}},
	}
}

func networkFaults() []fault {
	return []fault{
		{"link cut", func(w *world) bool {
			r, m, d := pick(w, w.routers), pick(w, w.machines), w.rare(100*ms, 8*sec)
			way := w.rng.IntN(3)
			w.note(anyone, anywhere, "NETWORK %s and %s cut for %dms, way %d", r.place, m.place, d/ms, way)
			if way != 1 {
				w.net.sever(r.place, m.place, d)
			}
			if way != 0 {
				w.net.sever(m.place, r.place, d)
			}
			return true
		}},
		{"link reset", func(w *world) bool {
			r := pick(w, w.routers)
			if r.proc.dead || len(r.lanes) == 0 {
				return false
			}
			ln := pick(w, r.lanes)
			r.proc.do(func() { ln.down("reset") })
			return true
		}},
		{"link slow", func(w *world) bool {
			r, m := pick(w, w.routers), pick(w, w.machines)
			k := way{m.place, r.place}
			if w.chance(0.3) {
				k = way{r.place, m.place}
			}
			d := w.rare(5*ms, 600*ms)
			w.note(anyone, anywhere, "NETWORK %s to %s is slow: %dms", k.from, k.to, d/ms)
			w.net.slow[k] = d
			w.after(w.rare(200*ms, 5*sec), func() { delete(w.net.slow, k) })
			return true
		}},
		{"node without kafka", onNode(func(w *world, n *nodeProc) {
			n.kafkaCut = true
			w.after(w.rare(200*ms, 10*sec), func() { n.kafkaCut = false })
		})},
	}
}

func kafkaFaults() []fault {
	onPart := func(do func(w *world, p *part)) func(w *world) bool {
		return func(w *world) bool {
			p := w.somePart()
			if p != nil {
				do(w, p)
			}
			return p != nil
		}
	}
	return []fault{
		{"broker away", onPart(func(w *world, p *part) {
			d := w.rare(100*ms, 4*sec)
			w.note(anyone, p.id, "KAFKA p%d has no leader for %dms", p.id, d/ms)
			p.until = max(p.until, w.now+d)
			p.wake()
		})},
		{"leader moved", onPart(func(w *world, p *part) {
			p.lags++
			lags := p.lags
			p.lag = w.between(0, 5)
			w.note(anyone, p.id, "KAFKA p%d leader moved, high watermark %d, end %d", p.id, p.high(), p.end)
			p.advance()
			w.after(w.rare(50*ms, 5*sec), func() {
				if p.lags == lags {
					p.lag = 0
					p.advance()
				}
			})
		})},
		{"coordinator away", func(w *world) bool { w.group.outage(w.rare(200*ms, 5*sec)); return true }},
		{"rebalance", func(w *world) bool { w.group.rebalance(); return true }},
		{"group deleted", func(w *world) bool {
			w.note(anyone, anywhere, "GROUP deleted at generation %d", w.group.generation)
			w.group.reset()
			return true
		}},
		{"retention", onPart(func(w *world, p *part) {
			p.retain(w.between(p.start, p.lso()))
			if w.chance(0.3) { // and on
				w.after(w.rare(ms, sec), func() { p.retain(p.lso()) })
			}
		})},
		{"compaction", onPart(func(w *world, p *part) { p.compact(w.between(p.start, p.lso())) })},
		{"long hole", onPart(func(w *world, p *part) {
			p.add(entry{kind: hole}, w.between(100, 6000))
			p.advance()
		})},
		{"topic recreated", func(w *world) bool {
			if w.kafka.deleted || w.kafka.made > 4 {
				return false
			}
			w.kafka.recreate(w.rare(300*ms, 3*sec))
			return true
		}},
	}
}

func etcdFaults() []fault {
	return []fault{
		{"etcd away", func(w *world) bool { w.etcd.outage(w.rare(500*ms, 15*sec)); return true }},
		{"etcd emptied", func(w *world) bool { w.etcd.wipe(false); return true }},
		{"etcd restored", func(w *world) bool {
			old := w.etcd.backup
			w.etcd.backup = w.etcd.now
			if old == nil {
				return false
			}
			w.etcd.backup = old
			w.etcd.wipe(true)
			w.etcd.backup = w.etcd.now
			return true
		}},
		{"watch stalled", func(w *world) bool {
			if len(w.etcd.watchers) == 0 {
				return false
			}
			h := pick(w, w.etcd.watchers)
			h.stall = w.now + w.rare(500*ms, 10*sec)
			w.note(anyone, anywhere, "ETCD %s hears nothing until %dms", h.p.name, h.stall/ms)
			return true
		}},
		{"node without etcd", onNode(func(w *world, n *nodeProc) {
			n.etcdCut = true
			w.note(anyone, anywhere, "ETCD is out of reach for %s", n.name)
			w.after(w.rare(500*ms, 12*sec), func() { n.etcdCut = false })
		})},
	}
}

func clientFaults() []fault {
	onClient := func(do func(w *world, c *client)) func(w *world) bool {
		return func(w *world) bool {
			if len(w.clients) == 0 {
				return false
			}
			c := pick(w, w.clients)
			if c.group != nil {
				c.group.trouble()
				return true
			}
			do(w, c)
			return true
		}
	}
	return []fault{
		{"client does not read", onClient(func(w *world, c *client) {
			c.proc.freeze()
			w.after(w.rare(200*ms, 10*sec), c.proc.thaw)
		})},
		{"client away", onClient(func(w *world, c *client) {
			c.away = true
			c.disconnect("it goes away")
			d := w.rare(50*ms, 8*sec)
			if w.chance(0.1) {
				d = w.set.chaos // the rest of the day
			}
			w.after(d, func() { c.away = false })
		})},
		{"client begins anew", onClient(func(_ *world, c *client) {
			c.disconnect("it forgets its cursor")
			c.wishes()
		})},
		{"client comes", func(w *world) bool {
			if len(w.clients) >= 12 || w.set.several > 0 {
				return false
			}
			w.addClient()
			return true
		}},
	}
}
